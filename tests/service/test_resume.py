"""A job that was cut off halfway goes on with what is left of it: nothing that is there, whole, is
made again, and what is missing has the bytes that it would have had."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from support.house import LIMIT_SECONDS, House, OpenHouse, job_id, payload, starts
from support.stage import Hold, StagedStore, SteppedDevice
from support.turns import turns

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.jobs import JobState
from ourvidz.ports import Part
from ourvidz.service.spool import Spool, open_folder
from scheduler.types import Fault, Phase

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

QUIET = {"callback.progress": False}
BATCH = {"batch_size": 3, "seed": 9}


class CountingDevice(SteppedDevice):
    """``pictures`` are the indices that it has decoded."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pictures: list[int] = []

    async def pace(
        self, part: Part, phase: Phase, step: int, cancelled: anyio.Event
    ) -> Fault | None:
        if phase.name == "decode":
            self.pictures.append(part.pictures[step])
        return await super().pace(part, phase, step, cancelled)


def folder(root: Path, name: str = "a") -> Path:
    return root / "data" / "spool" / job_id(name)


def digests(house: House, body: Mapping[str, Any]) -> list[str]:
    store = house.root / "store" / "workspace-temp"
    files = [(store / asset["url"]).read_bytes() for asset in body["assets"]]
    return [hashlib.sha256(file).hexdigest() for file in files]


async def undisturbed(open_house: OpenHouse, tmp_path: Path, **fields: Any) -> list[str]:
    async with open_house(root=tmp_path / "undisturbed") as house:
        body = await house.run("a", **fields)
        await house.quiet()
        house.receiver.reset()
        return digests(house, body)


async def in_the_journal(house: House, count: int) -> None:
    """Return once so many files of the job are."""
    with anyio.fail_after(LIMIT_SECONDS):
        while len(await house.service.journal.assets(UUID(job_id("a")))) < count:
            await turns()


async def cut_off(
    open_house: OpenHouse, count: int, device: SteppedDevice | None = None, **fields: Any
) -> None:
    """The process ends when so many images of the job are rendered."""
    device = device or SteppedDevice()
    hold = device.hold("a", "decode", count)
    async with open_house(device, **QUIET) as house:
        await house.push("sdxl_queue", payload("a", **fields))
        await hold.reached()
        await in_the_journal(house, count)
        house.kill()


async def goes_on(open_house: OpenHouse, expected: list[str], made: list[int]) -> None:
    device = CountingDevice()
    async with open_house(device, **QUIET) as house:
        body = await house.ended("a")
        await house.quiet()
        assert body["status"] == "completed"
        assert [a["metadata"]["asset_index"] for a in body["assets"]] == list(range(len(expected)))
        assert digests(house, body) == expected
        assert device.pictures == made
        assert len(house.terminal(job_id("a"))) == 1


@pytest.mark.parametrize("count", [1, 2])
async def test_only_the_images_that_are_missing_are_made(
    open_house: OpenHouse, tmp_path: Path, count: int
) -> None:
    expected = await undisturbed(open_house, tmp_path, **BATCH)
    await cut_off(open_house, count, **BATCH)
    await goes_on(open_house, expected, list(range(count, 3)))


async def test_a_drain_keeps_what_is_rendered(open_house: OpenHouse, tmp_path: Path) -> None:
    expected = await undisturbed(open_house, tmp_path, **BATCH)
    device = SteppedDevice()
    hold = device.hold("a", "decode", 2)
    async with open_house(device, **QUIET, **{"service.drain_seconds": 0.02}) as house:
        await house.push("sdxl_queue", payload("a", **BATCH))
        await hold.reached()
        await in_the_journal(house, 2)
        await house.drain()
        await house.drained()
        assert await house.state("a") is JobState.QUEUED
        assert await house.attempts() == [0], "a drain is no attempt"
    await goes_on(open_house, expected, [2])


def lose_all(spool: Path) -> None:
    shutil.rmtree(spool.parent)


def lose_one(spool: Path) -> None:
    (spool / "0.png").unlink()


def cut_short(spool: Path) -> None:
    (spool / "1.png").write_bytes((spool / "1.png").read_bytes()[:-1])


def damage(spool: Path) -> None:
    """One bit, at the same size."""
    content = bytearray((spool / "0.png").read_bytes())
    content[-20] ^= 1
    (spool / "0.png").write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "made"),
    [(lose_all, [0, 1, 2]), (lose_one, [0, 2]), (cut_short, [1, 2]), (damage, [0, 2])],
)
async def test_files_that_are_not_whole_are_made_again(
    open_house: OpenHouse, tmp_path: Path, spoil: Callable[[Path], None], made: list[int]
) -> None:
    expected = await undisturbed(open_house, tmp_path, **BATCH)
    await cut_off(open_house, 2, **BATCH)
    spoil(folder(tmp_path))
    await goes_on(open_house, expected, made)


async def test_a_job_that_is_cut_off_again_and_again_gets_on(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    expected = await undisturbed(open_house, tmp_path, **BATCH)
    await cut_off(open_house, 1, **BATCH)
    device = CountingDevice()
    hold = device.hold("a", "decode", 1)
    async with open_house(device, **QUIET) as house:
        await hold.reached()
        await in_the_journal(house, 2)
        house.kill()
    assert device.pictures == [1, 2]
    await goes_on(open_house, expected, [2])


@pytest.mark.parametrize(("attempts", "fields"), [(3, BATCH), (1, {"seed": 4}), (1, {})])
async def test_a_job_of_which_all_is_there_is_not_run_at_all(
    open_house: OpenHouse, tmp_path: Path, attempts: int, fields: dict[str, Any]
) -> None:
    """The crash came between the last file and the job's end; no run is needed, so none is
    refused either."""
    expected = await undisturbed(open_house, tmp_path, **fields)
    hold = Hold()
    limit = {"intake.attempts_max": attempts}
    async with open_house(**QUIET, **limit) as house:
        house.service.journal.finish = lambda *_, **__: hold.wait()  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a", **fields))
        await hold.reached()
        assert await house.attempts() == [1]
        house.kill()
    second = FakeDevice()
    async with open_house(second, **QUIET, **limit) as house:
        body = await house.ended("a")
        await house.quiet()
        assert (body["status"], digests(house, body)) == ("completed", expected)
        assert (starts(second, "a"), await house.dead_letters()) == (0, [])
        job = await house.job("a")
        assert job is not None
        assert job["metrics"]["attempts"] == 1


async def test_an_enhancement_is_not_made_again(open_house: OpenHouse, tmp_path: Path) -> None:
    """Another text could come of it, and the images that are there belong to the first one."""
    fields = {**BATCH, "enhance": "base"}
    expected = await undisturbed(open_house, tmp_path, **fields)
    await cut_off(open_house, 1, **fields)
    device = CountingDevice()
    async with open_house(device, **QUIET) as house:
        body = await house.ended("a")
        await house.quiet()
        assert digests(house, body) == expected
        assert device.order == [f"{job_id('a')}/1"] * 3, "the second part alone has run"
        assert device.pictures == [1, 2]
        assert body["metadata"]["enhanced_prompt"].startswith("word")


async def test_files_whose_prompt_is_lost_are_made_again(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    fields = {**BATCH, "enhance": "base"}
    expected = await undisturbed(open_house, tmp_path, **fields)
    await cut_off(open_house, 1, **fields)
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "ourvidz.db")) as database:
        assert database.execute("DELETE FROM texts").rowcount == 1
        database.commit()
    await goes_on(open_house, expected, [0, 1, 2])


async def test_a_chain_of_which_all_is_there_is_not_run_at_all(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    fields = {"enhance": "base", "seed": 3}
    expected = await undisturbed(open_house, tmp_path, **fields)
    hold = Hold()
    async with open_house(**QUIET) as house:
        house.service.journal.finish = lambda *_, **__: hold.wait()  # type: ignore[method-assign]
        await house.push("sdxl_queue", payload("a", **fields))
        await hold.reached()
        house.kill()
    second = FakeDevice(models={})
    async with open_house(second, **QUIET) as house:
        body = await house.ended("a")
        await house.quiet()
        assert (body["status"], digests(house, body)) == ("completed", expected)
        assert starts(second, "a") == 0, "nor does it matter that its model is gone"


async def test_another_configuration_reads_nothing_new_into_what_was_accepted(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    fields = {**BATCH, "steps": None}
    expected = await undisturbed(open_house, tmp_path, **fields)
    await cut_off(open_house, 1, **fields)
    device = CountingDevice()
    async with open_house(device, **QUIET, **{"defaults.sdxl.steps": 7}) as house:
        body = await house.ended("a")
        await house.quiet()
        assert digests(house, body) == expected


async def test_folders_of_jobs_that_wait_stay_and_are_bounded(
    open_house: OpenHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ourvidz.service.spool._WAITING_MAX", 2)
    names = ["a", "b", "c", "done"]
    async with open_house(**QUIET) as house:
        await house.run("done")
        await house.quiet()
        house.service.intake.stop()
        for name in names[:3]:
            await house.service.submit(payload(name))
    for name in [*names, "never"]:
        folder(tmp_path, name).mkdir(parents=True)
    (tmp_path / "data" / "spool" / ".gone-1").mkdir()
    (tmp_path / "data" / "spool" / "stray").write_bytes(b"x")
    async with open_house(**QUIET) as house:
        house.service.intake.stop()
        await turns()
        left = {path.name for path in (tmp_path / "data" / "spool").iterdir()}
        assert len(left) == 2
        assert left < {job_id(name) for name in names[:3]}


@pytest.mark.parametrize(
    ("fields", "step", "phases"),
    [({"seed": 3}, 3, 2), ({"seed": 3, "enhance": "base"}, 2, 2), ({}, 3, 3)],
    ids=["seeded", "chain", "without a seed"],
)
async def test_what_is_denoised_goes_on_where_it_was(
    open_house: OpenHouse, tmp_path: Path, fields: dict[str, Any], step: int, phases: int
) -> None:
    expected = await undisturbed(open_house, tmp_path, **fields)
    device = SteppedDevice(save_steps=1, units_max=8)
    hold = device.hold("a", "denoise", step)
    async with open_house(device, **QUIET) as house:
        await house.push("sdxl_queue", payload("a", **fields))
        await hold.reached()
        house.kill()
    second = CountingDevice(save_steps=1, units_max=8)
    async with open_house(second, **QUIET) as house:
        body = await house.ended("a")
        await house.quiet()
        assert digests(house, body) == expected
        assert starts(second, "a") == phases
        if phases == 2:
            job = await house.job("a")
            assert job is not None
            enhanced = 16 if "enhance" in fields else 0
            assert job["metrics"]["steps_total"] == enhanced + 4 - step + 1


async def test_the_states_of_a_job_that_is_rendered_are_dropped(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    """Its files may wait long for a store that is away."""
    hold = Hold()
    async with open_house(FakeDevice(save_steps=1), **QUIET) as house:
        store = StagedStore(house.root / "store")
        store.before_put = lambda _: hold.wait()
        house.service.delivery.uploads.store = store
        await house.push("sdxl_queue", payload("a", seed=2))
        await hold.reached()
        await house.rendered("a")
        assert {path.name for path in folder(tmp_path).iterdir()} == {"0.png", "0.thumb.webp"}
        hold.release()
        await house.ended("a")
        await house.quiet()


async def test_a_reference_is_not_fetched_again(open_house: OpenHouse, tmp_path: Path) -> None:
    """Its URL may have expired."""

    def expired(_: str) -> None:
        raise KeyError("expired")

    device = SteppedDevice()
    hold = device.hold("a", "denoise", 1)
    async with open_house(device, **QUIET) as house:
        made = await house.run("first")
        reference = f"workspace-temp/{made['assets'][0]['url']}"
        await house.push("sdxl_queue", payload("a", reference_image=reference))
        await hold.reached()
        house.kill()
    store = StagedStore(tmp_path / "store")
    store.before_get = expired
    async with open_house(store=store, **QUIET) as house:
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        refused = await house.run("b", reference_image=reference)
        assert refused["status"] == "failed", "this one is fetched"


async def test_a_folder_that_cannot_be_removed_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool")
    open_folder(spool.folder("a"), keep=frozenset())

    def fail(*_: Any) -> None:
        raise PermissionError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        await spool.remove("a")
    assert spool.folder("a").is_dir()


async def test_a_folder_is_gone_at_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    kept = spool.folder("a")
    open_folder(kept, keep=frozenset())
    (kept / "0.png").write_bytes(b"x")
    await spool.left("a")
    await spool.remove("a")
    await spool.remove("a")
    await spool.rendered("a")
    assert list(spool.root.iterdir()) == []
