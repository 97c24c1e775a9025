"""The verbs that talk to a service: submit, jobs, ps; over a real API and a fake device."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import anyio
import orjson
import pytest
from support.command import CONFIG, Cli, Done, Served
from support.house import job_id
from support.turns import turns

from ourvidz.cli import follow
from ourvidz.jobs import ErrorCode, InvalidJob, JobError
from scheduler.types import Fault

_SPACE = UUID("00000000-0000-4000-8000-0000000000cc")
SMALL = ("--width", "64", "--height", "64", "--steps", "4")


def ident(name: str) -> str:
    return str(uuid5(_SPACE, name))


def image(served: Served, name: str, *more: str) -> tuple[str, ...]:
    arguments = ("submit", "sdxl_generate", "--prompt", "a pear", *SMALL, "--id", ident(name))
    return (*arguments, "--url", served.url, *more)


def resource(cli: Cli, served: Served, name: str) -> dict[str, Any]:
    shown = cli("jobs", "show", ident(name), "--json", "--url", served.url)
    assert shown.code == 0
    found: dict[str, Any] = orjson.loads(shown.out)
    return found


def test_submit_prints_the_id_of_a_new_job(cli: Cli, served: Served) -> None:
    done = cli("submit", "chat", "--message", "hi", "--url", served.url)
    assert done.code == 0
    assert str(UUID(done.out.strip())) == done.out.strip()


def test_every_option_reaches_the_job(cli: Cli, served: Served) -> None:
    sampling = ("--seed", "7", "--guidance-scale", "3.5", "--batch-size", "2")
    other = ("--negative-prompt", "fog", "--field", "user_id=" + ident("user"))
    done = cli(*image(served, "options", *sampling, *other, "--json"))
    given = orjson.loads(done.out)["input"]
    assert given["prompt"] == "a pear"
    wanted = {"width": 64, "height": 64, "steps": 4, "seed": 7, "guidance_scale": 3.5, "images": 2}
    assert {name: given[name] for name in wanted} == wanted
    assert given["warnings"] == []


def test_waiting_prints_a_path_for_each_file(cli: Cli, served: Served) -> None:
    """Where the configuration is the service's own; else its keys."""
    done = cli(*image(served, "files", "--wait", "--batch-size", "2", "--seed", "5"))
    keys = [asset["url"] for asset in resource(cli, served, "files")["output"]["assets"]]
    assert done == Done(0, "".join(f"{key}\n" for key in keys), "")
    assert len(keys) == 2
    assert all((served.files / key).is_file() for key in keys)


def test_waiting_prints_the_text(cli: Cli, served: Served) -> None:
    messages = ("--message", "system: be brief", "--message", "a: b", "--message", "user:hi")
    done = cli("submit", "chat", *messages, "--wait", "--url", served.url)
    assert done.code == 0
    assert done.out.startswith("word")


def test_waiting_with_json_prints_the_resource(cli: Cli, served: Served) -> None:
    done = cli(*image(served, "json", "--wait", "--json"))
    assert orjson.loads(done.out)["status"] == "completed"


def test_waiting_for_a_job_that_fails(cli: Cli, served: Served) -> None:
    served.house.device.faults.runs[ident("fails")] = [Fault.RUN]
    done = cli(*image(served, "fails", "--wait"))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"{ident('fails')} failed: ")
    assert "planted" in done.err


def test_a_repeat_is_the_same_job_and_another_body_is_refused(cli: Cli, served: Served) -> None:
    first = cli(*image(served, "twice"))
    again = cli(*image(served, "twice"))
    other = cli(*image(served, "twice", "--seed", "3"))
    assert first == again == Done(0, f"{ident('twice')}\n", "")
    assert (other.code, other.out) == (1, "")
    assert f"{ident('twice')} is taken" in other.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sdxl_generate", "--prompt", "x", "--steps", "999"), "steps: 999 is out of range"),
        (("nonsense", "--prompt", "x"), "nonsense"),
        (("sdxl_generate",), "prompt"),
        (("chat", "--field", "messages=7"), "messages: must be an array"),
        (("sdxl_generate", "--prompt", "x", "--field", "seed=NaN"), "seed: must be a number"),
    ],
)
def test_the_service_says_what_is_wrong(
    cli: Cli, served: Served, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("submit", *arguments, "--url", served.url)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("ourvidz: ")
    assert said in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--field", "steps=4", "--steps", "5"), "steps is given twice"),
        (("--field", "a=1", "--field", "a=1"), "a is given twice"),
        (("--field", "steps"), "is not KEY=JSON"),
        (("--field", "=4"), "is not KEY=JSON"),
        (("--prompt", "\udc80"), "UTF-8"),
        (("--id", ".."), "no job's id"),
        (("--steps", "many"), "steps"),
    ],
)
def test_what_cannot_be_sent_is_a_usage_error(
    cli: Cli, served: Served, arguments: tuple[str, ...], said: str
) -> None:
    done = cli("submit", "sdxl_generate", *arguments, "--url", served.url)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_fields_are_json_or_else_text(cli: Cli, served: Served) -> None:
    fields = ("--field", 'config={"num_images": 2}', "--field", "enhance=instruct")
    cli(*image(served, "fields", *fields))
    waited = cli(*image(served, "fields", *fields, "--wait", "--json"))
    found = orjson.loads(waited.out)
    assert found["input"]["images"] == 2
    assert found["output"]["final_prompt"] != "a pear"


def test_interrupting_the_wait_leaves_the_job(
    cli: Cli, held: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "wait", interrupted)
    done = cli(*image(held, "interrupted", "--wait"))
    assert (done.code, done.out) == (130, "")
    assert f"ourvidz jobs show {ident('interrupted')}" in done.err
    assert resource(cli, held, "interrupted")["status"] in ("queued", "processing")
    cli("jobs", "cancel", ident("interrupted"), "--url", held.url)


def test_list_shows_the_newest_first(cli: Cli, served: Served) -> None:
    for name in ("old", "new"):
        cli(*image(served, name, "--wait"))
    done = cli("jobs", "list", "--limit", "1", "--url", served.url)
    header, row = done.out.splitlines()
    assert header.split() == ["id", "type", "status", "progress", "created"]
    assert row.split()[:5] == [ident("new"), "sdxl_generate", "completed", "100", "%"]
    assert done.err == f"there are older ones: --before {ident('new')}\n"
    older = cli("jobs", "list", "--limit", "1", "--before", ident("new"), "--url", served.url)
    assert older.out.splitlines()[1].startswith(ident("old"))


def test_list_by_status_as_json(cli: Cli, served: Served) -> None:
    served.house.device.faults.runs[ident("failed")] = [Fault.RUN]
    cli(*image(served, "failed", "--wait"))
    done = cli("jobs", "list", "--status", "failed", "--json", "--url", served.url)
    found = orjson.loads(done.out)["jobs"]
    assert ident("failed") in [job["id"] for job in found]
    assert {job["status"] for job in found} == {"failed"}


def test_show_says_what_a_job_has_made(cli: Cli, served: Served) -> None:
    cli(*image(served, "shown", "--seed", "9", "--wait"))
    done = cli("jobs", "show", ident("shown"), "--url", served.url)
    facts = dict(line.split(":", 1) for line in done.out.splitlines() if ": " in line)
    assert facts["id"].strip() == ident("shown")
    assert facts["status"].strip() == "completed"
    assert facts["steps"].strip() == "6/6"
    assert facts["seed"].strip() == "9"
    assert done.out.splitlines()[-1].endswith(f"{ident('shown')}/0.png")


def test_show_gives_paths_where_the_files_lie_here(
    cli: Cli, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURVIDZ__STORE__DIR", str(served.files.parent))
    monkeypatch.setenv("OURVIDZ__HTTP__PORT", served.url.rpartition(":")[2])
    cli(*image(served, "local", "--wait"))
    done = cli("jobs", "show", ident("local"), "--config", str(CONFIG))
    last = done.out.splitlines()[-1]
    assert last.startswith(str(served.files))
    assert last.endswith(f"{ident('local')}/0.png")


def test_show_says_why_a_job_failed(cli: Cli, served: Served) -> None:
    served.house.device.faults.runs[ident("broken")] = [Fault.OUT_OF_MEMORY] * 9
    cli(*image(served, "broken", "--wait"))
    done = cli("jobs", "show", ident("broken"), "--url", served.url)
    assert done.code == 0
    (error,) = [line for line in done.out.splitlines() if line.startswith("error:")]
    assert "a smaller size" in error


def test_what_was_refused_in_a_queue_can_be_looked_at(cli: Cli, served: Served) -> None:
    body = {"id": job_id("refused"), "type": "sdxl_generate", "prompt": "x", "steps": 0}
    served.call(served.house.push, "sdxl_queue", body)
    served.call(served.house.ended, "refused")
    done = cli("jobs", "show", job_id("refused"), "--url", served.url)
    assert "steps: 0 is out of range" in done.out


def test_a_job_that_nobody_knows(cli: Cli, served: Served) -> None:
    for verb in ("show", "cancel"):
        done = cli("jobs", verb, ident("unknown"), "--url", served.url)
        assert (done.code, done.out) == (1, "")
        assert done.err == "ourvidz: id: no job has this id\n"


@pytest.mark.parametrize("odd", [".", "..", "a/../b", "%2e%2e", "a b\n", "?x=1"])
def test_odd_ids_reach_no_other_resource(cli: Cli, served: Served, odd: str) -> None:
    done = cli("jobs", "show", odd, "--url", served.url)
    assert done.code in (1, 2)
    assert "id" in done.err


def test_cancel_stops_a_job_that_runs(cli: Cli, held: Served) -> None:
    cli(*image(held, "cancelled"))
    done = cli("jobs", "cancel", ident("cancelled"), "--url", held.url)
    assert done.code == 0
    assert done.out.startswith(f"{ident('cancelled')}: ")
    waited = cli(*image(held, "cancelled", "--wait"))
    assert waited.code == 1
    assert waited.err.startswith(f"{ident('cancelled')} cancelled: CANCELLED")
    again = cli("jobs", "cancel", ident("cancelled"), "--json", "--url", held.url)
    assert orjson.loads(again.out)["status"] == "cancelled"


def test_a_job_that_has_ended_cannot_be_cancelled(cli: Cli, served: Served) -> None:
    cli(*image(served, "ended", "--wait"))
    done = cli("jobs", "cancel", ident("ended"), "--url", served.url)
    assert done.code == 1
    assert "completed" in done.err


def test_ps_shows_what_runs_what_waits_and_what_is_resident(cli: Cli, held: Served) -> None:
    for name in ("runs", "waits"):
        cli(*image(held, name))
    state = orjson.loads(cli("ps", "--json", "--url", held.url).out)
    assert {job["id"] for job in state["jobs"]} >= {ident("runs")}
    done = cli("ps", "--url", held.url)
    assert done.code == 0
    jobs, components, ledger = done.out.split("\n\n")
    assert any(row.split()[0] == ident("runs") for row in jobs.splitlines())
    assert "sdxl.text_encoders" in components
    assert "device:" in ledger
    assert "of 51,000 bytes" in ledger
    for name in ("runs", "waits"):
        cli("jobs", "cancel", ident(name), "--url", held.url)


def test_callbacks_that_were_given_up_are_listed_and_retried(cli: Cli, served: Served) -> None:
    async def park() -> None:
        journal = served.house.service.journal
        for name in "ab":
            error = JobError(ErrorCode.INVALID_PARAMETER, "steps")
            invalid = InvalidJob(ident(name), "sdxl_generate", None, "digest", error)
            assert await journal.reject(invalid, b"{}")
            await journal.answer_failed(f"{ident(name)}.failed", "answered 401", park=True)

    served.call(park)
    listed = cli("callbacks", "list", "--url", served.url)
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == [
        *("id", f"{ident('a')}.failed", f"{ident('b')}.failed")
    ]
    assert "answered 401" in listed.out
    found = orjson.loads(cli("callbacks", "list", "--json", "--url", served.url).out)["callbacks"]
    assert [one["attempts"] for one in found] == [1, 1]
    named = cli("callbacks", "retry", f"{ident('b')}.failed", "unknown", "--url", served.url)
    assert named == Done(1, "1 on their way\n", "ourvidz: the others are not parked\n")
    done = cli("callbacks", "retry", "--json", "--url", served.url)
    assert orjson.loads(done.out) == {"retried": 1}
    left = cli("callbacks", "list", "--json", "--url", served.url)
    assert orjson.loads(left.out) == {"callbacks": []}


def test_dead_letters_are_shown(cli: Cli, served: Served) -> None:
    served.call(served.house.push, "chat_queue", b"no job")

    async def refused() -> None:
        with anyio.fail_after(20):
            while [d.beginning for d in await served.house.source.dead_letters(1)] != [b"no job"]:
                await turns()

    served.call(refused)
    shown = cli("dead-letters", "--url", served.url)
    assert shown.code == 0
    header, letter, *_ = shown.out.splitlines()
    assert header.split() == ["queue", "since", "bytes", "reason"]
    assert letter.split()[0] == "chat_queue"
    newest = ("dead-letters", "--limit", "1", "--json", "--url", served.url)
    found = orjson.loads(cli(*newest).out)
    assert [one["element"] for one in found["dead_letters"]] == ["no job"]
