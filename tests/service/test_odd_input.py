"""What comes out of a queue is data from outside: each odd element is answered or kept, and harms
no other job."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from PIL import Image
from support.house import USER, House, OpenHouse, job_id, payload
from support.stage import SteppedDevice

from ourvidz.service import flow
from ourvidz.service.service import IdConflict
from ourvidz.wire import Rules

pytestmark = pytest.mark.anyio


async def well(house: House, name: str = "good") -> None:
    """The service still does its work, and nothing is left over."""
    assert (await house.run(name))["status"] == "completed"
    await house.quiet()


async def test_an_invalid_job_is_answered_and_dead_lettered(
    open_house: OpenHouse,
) -> None:
    async with open_house() as house:
        body = await house.run("bad", steps=9999)
        await well(house)
        assert body["status"] == "failed"
        assert body["metadata"]["error_type"] == "INVALID_PARAMETER"
        assert "steps" in body["error_message"]
        assert len(house.terminal(job_id("bad"))) == 1
        assert house.terminal(job_id("bad"))[0].headers["webhook-id"] == f"{job_id('bad')}.failed"
        job = await house.job("bad")
        assert job is not None
        assert (job["status"], job["error"]["code"]) == ("failed", "INVALID_PARAMETER")
        (reason,) = await house.dead_letters()
        assert "steps" in reason


async def test_an_invalid_job_that_comes_twice_is_answered_once(open_house: OpenHouse) -> None:
    async with open_house() as house:
        for _ in range(3):
            await house.push("sdxl_queue", payload("bad", steps=9999))
        await house.ended("bad")
        await well(house)
        assert len(house.terminal(job_id("bad"))) == 1
        assert len(await house.dead_letters()) == 3


async def test_what_names_no_job_is_a_dead_letter_alone(open_house: OpenHouse) -> None:
    odd = [
        b"",
        b"not JSON",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"[" * 100_000,
        orjson.dumps(["a", "b"]),
        orjson.dumps({"type": "sdxl_generate", "prompt": "no id"}),
        orjson.dumps({"type": "sdxl_generate", "prompt": "x" * 1_100_000}),
    ]
    async with open_house() as house:
        for raw in odd:
            await house.push("wan_queue", raw)
        await well(house)
        letters = await house.service.source.dead_letters(10)
        assert [letter.beginning for letter in reversed(letters)] == [raw[:4096] for raw in odd]
        assert [letter.size_bytes for letter in reversed(letters)] == [len(raw) for raw in odd]
        assert all(letter.reason for letter in letters)
        shown = await house.service.dead_letters(10)
        assert [one["bytes"] for one in shown] == [letter.size_bytes for letter in letters]
        assert max(len(one["element"]) for one in shown) == 4096
        assert {c.body["job_id"] for c in house.receiver.callbacks} == {job_id("good")}


async def test_an_id_that_is_no_uuid_is_answered_as_it_was_written(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.push("sdxl_queue", payload("x", id="job #1 ünïcode"))
        await well(house)
        (callback,) = house.terminal("job #1 ünïcode")
        assert callback.signature_valid
        assert "id" in callback.body["error_message"]


async def test_a_job_of_any_type_may_come_out_of_any_queue(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.push("chat_queue", payload("w", "wan_generate", frames=1))
        assert (await house.ended("w"))["status"] == "completed"


async def test_a_second_element_of_a_present_job_runs_nothing_twice(open_house: OpenHouse) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        # The same body in another form and key order, as a producer that retries would push it.
        again = dict(reversed(list(payload("a").items())))
        await house.push("sdxl_queue", [orjson.dumps(again).decode()])
        await house.push("sdxl_queue", payload("b"))
        await house.reached("b", "queued")  # so the element before it has been dealt with
        assert await house.elements() == 2, "one of a, one of b"
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.ended("b")
        await house.quiet()
        assert house.starts("a") == 3
        assert len(house.terminal(job_id("a"))) == 1
        assert await house.dead_letters() == []


async def test_an_element_that_lost_its_lease_is_claimed_anew(
    open_house: OpenHouse,
) -> None:
    """Otherwise acknowledging the redelivered element would drop the job's only one."""
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        job = house.service.roster.get(UUID(job_id("a")))
        assert job is not None
        first = job.claimed.claim_id
        await house.source.hand_back(first)  # as the reaper does with an expired lease
        await house.push("sdxl_queue", payload("b"))
        await house.reached("b", "queued")
        assert await house.elements() == 2, "the job's own element is still there"
        assert job.claimed.claim_id != first
        assert job.claimed.claim_id in house.service.leases.held()
        hold.release()
        await house.ended("a")
        await house.ended("b")
        await house.quiet()
        assert house.starts("a") == 3


async def test_an_element_of_an_ended_job_is_dropped(open_house: OpenHouse) -> None:
    async with open_house() as house:
        await house.run("a")
        await house.quiet()
        await house.push("sdxl_queue", payload("a"))
        await well(house)
        assert house.starts("a") == 3
        assert len(house.terminal(job_id("a"))) == 1
        assert await house.dead_letters() == []


@pytest.mark.parametrize("when", ["present", "ended"])
async def test_another_body_under_a_known_id_is_kept_and_not_answered(
    open_house: OpenHouse, when: str
) -> None:
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        if when == "ended":
            hold.release()
            await house.ended("a")
        await house.push("sdxl_queue", payload("a", prompt="another"))
        await house.push("sdxl_queue", payload("b"))
        await house.reached("b", "queued", "processing", "completed")
        hold.release()
        await house.ended("b")
        assert (await house.ended("a"))["status"] == "completed"
        await house.quiet()
        assert len(house.terminal(job_id("a"))) == 1
        assert await house.dead_letters() == ["same id, another body"]
        assert await house.status("a") == "completed"


SPELLINGS = [
    lambda text: text,
    lambda text: text.upper(),
    lambda text: text.replace("-", ""),
    lambda text: "{" + text + "}",
    lambda text: f"urn:uuid:{text}",
]


@pytest.mark.parametrize("spelt", SPELLINGS, ids=["same", "upper", "bare", "braces", "urn"])
async def test_an_invalid_payload_cannot_fail_a_good_job(open_house: OpenHouse, spelt: Any) -> None:
    """A database reads every spelling of a UUID as the same id, so none may be answered."""
    device = SteppedDevice()
    hold = device.hold("a", "denoise", 2)
    async with open_house(device) as house:
        await house.push("sdxl_queue", payload("a"))
        await hold.reached()
        bad = payload("a", id=spelt(job_id("a")), steps=9999)
        await house.push("sdxl_queue", bad)
        await house.push("sdxl_queue", payload("b"))
        await house.reached("b", "queued")
        assert await house.status("a") == "processing"
        hold.release()
        assert (await house.ended("a"))["status"] == "completed"
        await house.ended("b")
        await house.quiet()
        terminal = [c for c in house.receiver.callbacks if c.status in ("completed", "failed")]
        assert sorted(c.body["status"] for c in terminal) == ["completed", "completed"]
        for asset in (await house.job("a") or {})["output"]["assets"]:
            assert (house.root / "store" / "workspace-temp" / asset["url"]).is_file()


async def test_an_id_that_was_refused_once_is_taken(open_house: OpenHouse) -> None:
    """Its failed callback was sent: a second terminal one must not follow."""
    async with open_house() as house:
        await house.run("bad", steps=9999)
        await house.push("sdxl_queue", payload("bad"))
        with pytest.raises(IdConflict):
            await house.service.submit(payload("bad"))
        await well(house)
        assert len(house.terminal(job_id("bad"))) == 1
        assert len(await house.dead_letters()) == 2


async def test_a_reference_that_is_none_fails_its_job_alone(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    bucket = tmp_path / "store" / "workspace-temp"
    bucket.mkdir(parents=True)
    (bucket / "text.png").write_bytes(b"no image at all")
    Image.new("1", (13_000, 13_000)).save(bucket / "huge.png")
    reasons = {
        f"workspace-temp/{USER}/nothing/0.png": "no such file",
        "workspace-temp/text.png": "image",
        "workspace-temp/huge.png": "pixels",
        "workspace-temp/../../data/ourvidz.db": "dot",
        "https://169.254.169.254/latest/meta-data": "host",
        "data:image/png;base64,AAAA": "data URI",
        "file:///etc/passwd": "https",
    }
    async with open_house() as house:
        for location in reasons:
            await house.push("sdxl_queue", payload(location, reference_image=location))
        await house.push("sdxl_queue", payload("other"))
        for location, reason in reasons.items():
            body = await house.ended(location)
            assert body["status"] == "failed"
            assert body["metadata"]["error"]["code"] == "REFERENCE_FRAME_ERROR"
            assert reason in body["error_message"]
            assert house.starts(location) == 0
        assert (await house.ended("other"))["status"] == "completed"
        await house.quiet()


async def test_the_same_submission_at_the_same_time_is_one_job(open_house: OpenHouse) -> None:
    async with open_house() as house:
        first, new = await house.service.submit(payload("a"))
        second, again = await house.service.submit(payload("a"))
        assert (new, again) == (True, False)
        assert first.spec == second.spec
        await house.ended("a")
        await house.quiet()
        assert house.starts("a") == 3


async def test_a_parser_that_breaks_sets_its_element_aside(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = flow.parse

    def breaking(raw: bytes, rules: Rules) -> Any:
        if b"poison" in raw:
            raise RecursionError("deep")
        return parse(raw, rules)

    monkeypatch.setattr(flow, "parse", breaking)
    async with open_house() as house:
        await house.push("sdxl_queue", payload("a", prompt="poison"))
        await well(house)
        assert await house.dead_letters() == ["internal error (RecursionError('deep'))"]
        assert house.service.health()["alarms"] == ["job_defect"]


async def test_deep_payloads_run_and_survive_a_restart(open_house: OpenHouse) -> None:
    deep: Any = 1
    for _ in range(240):
        deep = [deep]
    async with open_house() as house:
        assert (await house.run("a", unknown=deep))["status"] == "completed"
        await house.service.submit(payload("b", unknown=deep))
        assert len(await house.service.jobs(10, None, None, "")) == 2
        house.kill()
    async with open_house() as house:
        await house.ended("b")
        await house.quiet()


@pytest.mark.parametrize("form", ["too large", "not UTF-8"])
async def test_what_is_refused_as_a_whole_is_answered(open_house: OpenHouse, form: str) -> None:
    prompt = "x" * (1_100_000 if form == "too large" else 10)
    raw = orjson.dumps(payload("bad", prompt=prompt))
    raw = raw if form == "too large" else raw.replace(b"xx", b"x\xff", 1)
    async with open_house() as house:
        await house.push("sdxl_queue", raw)
        body = await house.ended("bad")
        await house.quiet()
        assert body["status"] == "failed"
        assert form in body["error_message"]
        assert len(await house.dead_letters()) == 1
