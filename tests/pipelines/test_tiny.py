"""Tiny checkpoints are made once, whole or not at all, and always the same."""

import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pipelines.setup import prepare
from pipelines.tiny.publish import publish
from pipelines.tiny.sdxl import make_sdxl


def make_folder(target: Path) -> None:
    target.mkdir()
    (target / "whole").write_text("1")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_publish_makes_a_folder_or_a_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet"
    publish(root / "folder", make_folder)
    publish(root / "file", lambda target: target.write_text("2") and None)
    assert names(root) == {"folder", "file"}
    assert (root / "folder" / "whole").read_text() == "1"


def test_publish_leaves_what_exists(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    publish(tmp_path / "folder", lambda _target: pytest.fail("built again"))
    assert names(tmp_path) == {"folder"}


def test_a_failed_build_publishes_nothing(tmp_path: Path) -> None:
    def fail(target: Path) -> None:
        make_folder(target)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        publish(tmp_path / "folder", fail)
    assert names(tmp_path) == set()


def test_of_two_at_once_one_wins_and_both_find_it_whole(tmp_path: Path) -> None:
    both = threading.Barrier(2)
    failures: list[BaseException] = []

    def build(target: Path) -> None:
        make_folder(target)
        both.wait()

    def make() -> None:
        try:
            publish(tmp_path / "folder", build)
            assert (tmp_path / "folder" / "whole").read_text() == "1"
        except (OSError, AssertionError) as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert names(tmp_path) == {"folder"}


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        publish(tmp_path / "file" / "folder", make_folder)


def test_sdxl_is_the_same_each_time_and_small(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_sdxl(tmp_path / name)
    one, other = (load_file(tmp_path / name / "sdxl.safetensors") for name in ("a", "b"))
    assert one.keys() == other.keys()
    assert all(one[key].equal(other[key]) for key in one)
    size = sum(path.stat().st_size for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert size < 8_000_000


def test_making_sdxl_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    import torch

    before = torch.get_rng_state()
    make_sdxl(tmp_path)
    assert torch.get_rng_state().equal(before)


def test_prepare_may_be_called_again() -> None:
    import torch

    threads = torch.get_num_threads()
    prepare()
    prepare()
    assert torch.get_num_threads() == threads
