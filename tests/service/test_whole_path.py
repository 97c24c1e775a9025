"""Jobs of every type through the whole service: queue to signed callback, over the fake device."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import av
import orjson
import pytest
from PIL import Image
from support.house import USER, House, OpenHouse, job_id, payload
from support.stage import SteppedDevice

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.ports import Part, RunSink
from scheduler.types import Fault

pytestmark = pytest.mark.anyio


def stored(house: House, key: str) -> Path:
    return house.root / "store" / "workspace-temp" / key


async def test_a_batch_is_stored_in_order_with_its_seeds(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        body = await house.run("a", batch_size=3, seed=7)
        await house.quiet()
        assert body["status"] == "completed"
        assert [asset["metadata"]["seed"] for asset in body["assets"]] == [7, 8, 9]
        assert [asset["metadata"]["asset_index"] for asset in body["assets"]] == [0, 1, 2]
        folder = f"{USER}/{job_id('a')}"
        assert [asset["url"] for asset in body["assets"]] == [f"{folder}/{i}.png" for i in range(3)]
        files = [stored(house, asset["url"]).read_bytes() for asset in body["assets"]]
        assert len({hashlib.sha256(file).digest() for file in files}) == 3
        for index, asset in enumerate(body["assets"]):
            with Image.open(stored(house, asset["url"])) as image:
                assert (image.format, image.size) == ("PNG", (64, 64))
                assert f"Seed: {7 + index}" in image.text["parameters"]
                details = orjson.loads(str(image.text["ourvidz"]))
                assert details["model"] == "sdxl", "as the plan says"
            assert asset["metadata"]["file_size_bytes"] == len(files[index])
            assert asset["thumbnail_url"] == f"{folder}/{index}.thumb.webp"
            with Image.open(stored(house, asset["thumbnail_url"])) as thumbnail:
                assert thumbnail.format == "WEBP"
        job = await house.job("a")
        assert job is not None
        assert (job["status"], job["progress"]) == ("completed", 100.0)
        assert [asset["sha256"] for asset in job["output"]["assets"]] == [
            hashlib.sha256(file).hexdigest() for file in files
        ]
        assert all(c.signature_valid for c in house.receiver.callbacks)
        event_ids = [c.headers["webhook-id"] for c in house.terminal(job_id("a"))]
        assert event_ids == [f"{job_id('a')}.completed"]


async def test_the_same_job_gives_the_same_bytes(open_house: OpenHouse, tmp_path: Path) -> None:
    digests = []
    for folder in ("one", "two"):
        async with open_house(root=tmp_path / folder) as house:
            house.receiver.reset()
            body = await house.run("a", batch_size=2, seed=3)
            files = [stored(house, asset["url"]) for asset in body["assets"]]
            digests.append([hashlib.sha256(file.read_bytes()).digest() for file in files])
    assert digests[0] == digests[1]


class Seeing(FakeDevice):
    """Remembers the parts it was given, with the bytes of their references."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[Part] = []
        self.references: list[dict[str, bytes]] = []

    def begin(self, part: Part, sink: RunSink) -> None:
        self.parts.append(part)
        self.references.append({r: p.read_bytes() for r, p in part.references.items()})
        super().begin(part, sink)


async def test_a_reference_comes_out_of_our_own_storage(open_house: OpenHouse) -> None:
    device = Seeing()
    async with open_house(device) as house:
        first = await house.run("a")
        key = f"workspace-temp/{first['assets'][0]['url']}"
        body = await house.run("b", reference_image=key, reference_strength=0.4)
        await house.quiet()
        assert body["status"] == "completed"
        metadata = body["assets"][0]["metadata"]
        assert (metadata["pipeline"], metadata["denoise_strength"]) == ("img2img", 0.6)
        assert device.references[1].keys() == {"image"}
        with Image.open(stored(house, first["assets"][0]["url"])) as image:
            assert image.size == (64, 64)


async def test_a_video_is_one_file_with_its_frames(open_house: OpenHouse) -> None:
    async with open_house() as house:
        body = await house.run("v", "wan_generate", seed=5)
        await house.quiet()
        (asset,) = body["assets"]
        assert asset["type"] == "video"
        assert asset["url"] == f"{USER}/{job_id('v')}/0.mp4"
        assert body["metadata"]["frame_num"] == asset["metadata"]["frame_num"] == 5
        assert asset["metadata"]["seed"] == 5
        with av.open(str(stored(house, asset["url"]))) as file:
            assert sum(1 for _ in file.decode(video=0)) == 5
        assert stored(house, asset["thumbnail_url"]).is_file()


async def test_one_frame_is_an_image(open_house: OpenHouse) -> None:
    async with open_house() as house:
        body = await house.run("w", "wan_generate", frames=1)
        (asset,) = body["assets"]
        assert (asset["type"], asset["url"][-4:]) == ("image", ".png")
        with Image.open(stored(house, asset["url"])) as image:
            assert image.size == (64, 32)


async def test_text_jobs_report_their_text_under_its_two_names(open_house: OpenHouse) -> None:
    async with open_house() as house:
        enhanced = await house.run("e", "enhance_instruct", target_model="sdxl", seed=1)
        said = [{"role": "user", "content": "hello"}]
        chat = await house.run("c", "chat", prompt=None, messages=said, seed=2)
        base = await house.run("b", "enhance_base", target_model="wan", seed=3)
        await house.quiet()
        for body, name in (
            (enhanced, "enhanced_prompt"),
            (chat, "response"),
            (base, "enhanced_prompt"),
        ):
            assert (body["status"], body["assets"]) == ("completed", [])
            assert body["metadata"]["text"] == body["metadata"][name]
            assert body["metadata"]["text"].startswith("word")
        job = await house.job("c")
        assert job is not None
        assert job["output"]["text"] == chat["metadata"]["text"]
        log = await house.service.log_of(job_id("c"))
        assert log is not None
        deltas = [e.data["text"] async for e in log.follow(0) if e.name == "delta"]
        assert "".join(deltas) == chat["metadata"]["text"]


async def test_a_chain_is_one_job_outside_and_two_parts_inside(open_house: OpenHouse) -> None:
    device = Seeing()
    async with open_house(device) as house:
        body = await house.run("c", enhance="instruct", prompt="a gull", batch_size=2)
        await house.quiet()
        assert body["status"] == "completed"
        assert [part.id for part in device.parts] == [f"{job_id('c')}/0", f"{job_id('c')}/1"]
        assert body["metadata"]["original_prompt"] == "a gull"
        final = body["metadata"]["final_prompt"]
        assert final.startswith("word")
        assert getattr(device.parts[1].work, "prompt", None) == final
        assert [a["url"] for a in body["assets"]] == [
            f"{USER}/{job_id('c')}/{i}.png" for i in range(2)
        ]
        assert len(house.terminal(job_id("c"))) == 1
        job = await house.job("c")
        assert job is not None
        assert job["metrics"]["attempts"] == 1
        assert job["metrics"]["steps_done"] == job["metrics"]["steps_total"]


async def test_a_failed_enhancement_fails_the_job(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    device.fail("c", "generate", 2, Fault.RUN)
    async with open_house(device) as house:
        body = await house.run("c", enhance="instruct")
        await house.quiet()
        assert body["status"] == "failed"
        assert body["metadata"]["error"]["code"] == "WORKER_UNAVAILABLE"
        assert house.starts("c") == 1


class Silent(FakeDevice):
    """Its language models say nothing."""

    def begin(self, part: Part, sink: RunSink) -> None:
        def without_words(notice: Any) -> None:
            if hasattr(notice, "text"):
                notice = type(notice)(**{**fields_of(notice), "text": " "})
            sink(notice)

        super().begin(part, without_words)


def fields_of(notice: Any) -> dict[str, Any]:
    return {name: getattr(notice, name) for name in notice.__slots__}


async def test_an_empty_enhancement_fails_the_job(open_house: OpenHouse) -> None:
    async with open_house(Silent()) as house:
        body = await house.run("c", enhance="instruct")
        await house.quiet()
        assert body["status"] == "failed"
        assert body["metadata"]["error"]["code"] == "INVALID_PROMPT"
        assert house.starts("c") == 1


class Mute(FakeDevice):
    """Finishes its phases and yields nothing but steps."""

    def begin(self, part: Part, sink: RunSink) -> None:
        super().begin(part, lambda notice: sink(notice) if hasattr(notice, "lease") else None)


@pytest.mark.parametrize("type_", ["sdxl_generate", "wan_generate", "enhance_base"])
async def test_a_run_that_gives_nothing_is_no_success(open_house: OpenHouse, type_: str) -> None:
    async with open_house(Mute()) as house:
        body = await house.run("m", type_)
        await house.quiet()
        assert body["status"] == "failed"
        assert "the run gave no" in body["error_message"]


async def test_a_legacy_payload_in_the_form_its_producer_queues(open_house: OpenHouse) -> None:
    legacy = {
        "id": job_id("l"),
        "type": "sdxl_image_fast",
        "prompt": "huts",
        "user_id": USER,
        "config": {"num_images": 6, "num_inference_steps": 4, "resolution": "64x64", "seed": 51},
        "metadata": {"something_new": [1]},
    }
    async with open_house() as house:
        await house.push("sdxl_queue", [orjson.dumps(legacy).decode()])
        body = await house.ended("l")
        assert body["status"] == "completed"
        assert body["metadata"]["job_type"] == "sdxl_image_fast"
        assert [a["metadata"]["seed"] for a in body["assets"]] == [51, 52, 53, 54, 55, 56]


async def test_three_queues_are_consumed_at_the_same_time(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("s", "denoise")
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("s"))
        await hold.reached()
        await house.push("wan_queue", payload("w", "wan_generate"))
        await house.push("chat_queue", payload("c", "enhance_base"))
        for name in ("w", "c"):
            await house.reached(name, "queued")
        assert len(house.service.roster) == 3
        hold.release()
        for name in ("s", "w", "c"):
            assert (await house.ended(name))["status"] == "completed"
        await house.quiet()
