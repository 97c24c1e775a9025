"""PNG files: what other programs read from them, and that the same job gives the same bytes."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ourvidz.adapters.media import FileMeta, library_versions, write_png

PIXELS = np.random.default_rng(7).integers(0, 256, (24, 40, 3), dtype=np.uint8)
META = FileMeta(
    prompt="a lighthouse, at dusk",
    negative_prompt="blurry",
    parameters={
        "Steps": 25,
        "Sampler": "Euler",
        "CFG scale": 7.5,
        "Seed": 42,
        "Size": "40x24",
        "Model": 'tiny, "random": v1',
        "Denoising strength": 1.0,
    },
    details={"seed": 42, "versions": {"torch": "2.13.0"}, "steps": 25},
)
ODD_TEXTS = [
    "plain",
    "caf\u00e9 \u732b \U0001f408",
    "first line\nsecond line\r\nthird",
    "nul\0in the middle",
    "lone \ud800 surrogate \udfff",
    "\x01\x1b[31m controls",
    "Negative prompt: not really",
    "Steps: 3, Sampler: none",
    "x" * 100_000,
    "",
]


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG, read without the library that wrote it."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def read_line(line: str) -> dict[str, str]:
    """The parameter line as its readers take it: comma-separated, values quoted as JSON."""
    pairs = re.findall(r'(\w[\w \-/]*): ("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)', line)
    return {name: json.loads(value) if value[:1] == '"' else value for name, value in pairs}


def test_pixels_survive_and_both_texts_are_there(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    written = write_png(path, PIXELS, META)
    assert written.size_bytes == path.stat().st_size
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        text = image.text
    prompt, negative, line = text["parameters"].split("\n")
    assert prompt == "a lighthouse, at dusk"
    assert negative == "Negative prompt: blurry"
    assert line.startswith("Steps: 25, Sampler: Euler, CFG scale: 7.5, Seed: 42, Size: 40x24, ")
    assert read_line(line) == {
        "Steps": "25",
        "Sampler": "Euler",
        "CFG scale": "7.5",
        "Seed": "42",
        "Size": "40x24",
        "Model": 'tiny, "random": v1',
        "Denoising strength": "1",
    }
    assert json.loads(text["ourvidz"]) == META.details


def test_the_chunks_are_of_the_promised_kinds_and_carry_no_time(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    write_png(path, PIXELS, META)
    kinds = [(kind, body.split(b"\0")[0]) for kind, body in chunks(path.read_bytes())]
    assert (b"tEXt", b"parameters") in kinds
    assert (b"iTXt", b"ourvidz") in kinds
    assert {kind for kind, _ in kinds} == {b"IHDR", b"tEXt", b"iTXt", b"IDAT", b"IEND"}


def test_no_negative_prompt_no_line(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    write_png(path, PIXELS, FileMeta("cat", parameters={"Steps": 1}))
    with Image.open(path) as image:
        assert image.text["parameters"] == "cat\nSteps: 1"
    assert FileMeta("cat").parameters_text == "cat"
    assert FileMeta("").parameters_text == ""


@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_odd_texts_survive(tmp_path: Path, text: str) -> None:
    path = tmp_path / "0.png"
    write_png(path, PIXELS, FileMeta(text, text, {"Steps": 1}, {"prompt": text}))
    with Image.open(path) as image:
        parameters, details = image.text["parameters"], json.loads(image.text["ourvidz"])
    replaced = re.sub("[\ud800-\udfff]", "\ufffd", text)
    assert details == {"prompt": replaced}
    expected = replaced.replace("\0", "\ufffd")
    negative = f"Negative prompt: {expected}\n" if expected else ""
    prompt = f"{expected}\n" if expected else ""
    assert parameters == f"{prompt}{negative}Steps: 1"


def test_the_same_job_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    here = write_png(tmp_path / "here.png", PIXELS, META)
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from ourvidz.adapters.media import FileMeta, write_png\n"
        "pixels = np.random.default_rng(7).integers(0, 256, (24, 40, 3), dtype=np.uint8)\n"
        f"meta = FileMeta({META.prompt!r}, {META.negative_prompt!r}, {META.parameters!r}, "
        f"dict(reversed({META.details!r}.items())))\n"
        "print(write_png(Path(sys.argv[1]), pixels, meta).sha256)\n"
    )
    target = str(tmp_path / "there.png")
    run = subprocess.run([sys.executable, "-c", code, target], capture_output=True, check=True)
    assert run.stdout.decode().strip() == here.sha256


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    other = FileMeta(META.prompt, META.negative_prompt, META.parameters, {"seed": 43})
    first = write_png(tmp_path / "a.png", PIXELS, META)
    assert first != write_png(tmp_path / "b.png", PIXELS, other)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_other_arrays_are_refused_by_shape(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=re.escape(str(pixels.shape))):
        write_png(tmp_path / "0.png", pixels, META)
    assert list(tmp_path.iterdir()) == []


def test_pixels_in_any_memory_layout(tmp_path: Path) -> None:
    turned = PIXELS.transpose(1, 0, 2)[::-1]
    write_png(tmp_path / "0.png", turned, META)
    with Image.open(tmp_path / "0.png") as image:
        assert np.array_equal(np.asarray(image), turned)


def test_what_json_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_png(tmp_path / "0.png", PIXELS, FileMeta("", details={"x": float("nan")}))


def test_versions_come_without_importing_the_libraries() -> None:
    code = (
        "import sys\nfrom ourvidz.adapters.media import library_versions\n"
        "versions = library_versions()\nassert 'torch' not in sys.modules\n"
        "print(sorted(versions))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout.decode().strip() == str(sorted(library_versions()))
    assert {"ourvidz", "torch", "diffusers", "transformers"} <= set(library_versions())
