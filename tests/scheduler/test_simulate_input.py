"""Workloads and profiles that cannot be: each error names the place, the value and what is
allowed."""

from __future__ import annotations

from typing import Any

import pytest

from scheduler.errors import InputError
from scheduler.profile import parse
from scheduler.types import Sharing
from scheduler.workload import parse as parse_line
from tests.scheduler.traffic import BATCHING, PROFILE, line, profile, workload


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "line 1: id is '', allowed: a text"),
        ({"id": 7}, "line 1: id is 7, allowed: a text"),
        ({"id": "a\nb"}, r"line 1: id is 'a\nb', allowed: a text of up to 200 printable"),
        ({"id": "a" * 201}, "line 1: id is 'aaaa"),
        ({"arrival_s": float("nan")}, "arrival_s is nan, allowed: a number from -1e+12"),
        ({"arrival_s": "3"}, "arrival_s is '3', allowed: a number from -1e+12"),
        ({"arrival_s": True}, "arrival_s is True"),
        ({"arrival_s": None}, "arrival_s is missing"),
        ({"type": "sdxl"}, "type is 'sdxl', allowed: chat, enhance_base"),
        ({"images": 0}, "images is 0, allowed: a whole number from 1 to 1000000"),
        ({"images": 1.5}, "images is 1.5"),
        ({"steps": 10**7}, "steps is 10000000"),
        ({"steps": None}, "steps is missing"),
        ({"user": 3}, "user is 3"),
        ({"after": ""}, "after is ''"),
        ({"after": 3}, "after is 3"),
    ],
)
def test_a_line_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_line(line("sdxl_generate", "a", 0.0) | change, "line 1")
    assert message in str(error.value)


@pytest.mark.parametrize("value", [None, 3, [], "a"])
def test_a_line_that_is_no_table(value: object) -> None:
    with pytest.raises(InputError, match=r"line 1 is .*, allowed: a table"):
        parse_line(value, "line 1")


def test_what_a_line_may_leave_out_or_add() -> None:
    entry = line("chat", "a", 0) | {"after": None, "colour": "red"}
    del entry["user"]
    found = parse_line(entry, "line 1")
    assert (found.user, found.after, found.tokens, found.images) == ("", None, 64, 1)


def test_chains_that_cannot_be() -> None:
    one, two = line("chat", "a", 0.0), line("chat", "b", 0.0)
    with pytest.raises(InputError, match="request a: the id comes twice"):
        workload(one, one)
    with pytest.raises(InputError, match="request a: after is 'z', no such id"):
        workload(one | {"after": "z"})
    with pytest.raises(InputError, match="request a: after is 'b', a chain without a beginning"):
        workload(one | {"after": "b"}, two | {"after": "a"}, line("chat", "c", 0.0))
    with pytest.raises(InputError, match="no requests"):
        workload()


def without(section: str, key: str) -> dict[str, Any]:
    return {**PROFILE, section: {k: v for k, v in PROFILE[section].items() if k != key}}


def with_phase(**change: Any) -> dict[str, Any]:
    return {**PROFILE, "phase": [PROFILE["phase"][0] | change]}


def with_link(**change: float) -> dict[str, Any]:
    return {**PROFILE, "links": PROFILE["links"] | change}


def with_batching(**change: float) -> dict[str, Any]:
    batching = {"text_exponent": 0.2, "text_max": 4, "image_exponent": 0.9, "image_max": 6}
    return {**PROFILE, "batching": batching | change}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the profile is [], allowed: a table"),
        ({}, "is missing"),
        ({**PROFILE, "links": 3}, "[links] is 3, allowed: a table"),
        (without("device", "vram_bytes"), "[device]: vram_bytes is missing"),
        (without("slo_seconds", "chat"), "[slo_seconds]: chat is missing"),
        ({**PROFILE, "device": PROFILE["device"] | {"reserve_bytes": 111}}, "up to vram_bytes"),
        ({**PROFILE, "device": PROFILE["device"] | {"vram_bytes": 1.5}}, "whole number of bytes"),
        (with_link(disk_to_host=0), "disk_to_host is 0, allowed: a number from 1"),
        (with_link(host_to_device=1e-8), "host_to_device is 1e-08, allowed: a number from 1"),
        (with_link(fixed_seconds=1e17), "fixed_seconds is 1e+17, allowed: a number from 0"),
        (with_batching(text_exponent=1.5), "text_exponent is 1.5, allowed: a number from 0 to 1"),
        (with_batching(image_exponent=30), "image_exponent is 30, allowed: a number from 0 to 1"),
        ({**PROFILE, "phase": []}, "[[phase]] is missing"),
        (with_phase(components=["vae"]), "[[phase]] 1: component vae is not in [components]"),
        (with_phase(components="vae"), "components is 'vae', allowed: a list of texts"),
        (with_phase(name="a\x1b"), "name is 'a\\x1b', allowed: a text"),
        (
            {**PROFILE, "components": PROFILE["components"] | {"a\nb": 1}},
            r"[components]: key 'a\nb', allowed: a text of up to 200 printable characters",
        ),
        (with_phase(types=["x"]), "[[phase]] 1: type is 'x', allowed: chat"),
        (with_phase(seconds=-1), "[[phase]] 1: seconds is -1, allowed: a number from 0"),
        (with_phase(frame_scaled=1), "frame_scaled is 1, allowed: true or false"),
        (with_phase(step_seconds=1, token_seconds=1), "allowed: one of them"),
    ],
)
def test_a_profile_that_cannot_be(document: object, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse(document)
    assert message in str(error.value)


def test_a_type_without_phases_is_named_when_it_is_asked_for() -> None:
    card = parse(with_phase())
    (request,) = workload(line("chat", "a", 0.0)).requests
    with pytest.raises(InputError, match=r"no \[\[phase\]\] for type chat"):
        card.demand(request)


def test_what_phases_cost() -> None:
    image, video = workload(
        line("sdxl_generate", "a", 2.0, images=3, steps=10),
        line("wan_generate", "b", 2.0, frames=27, steps=5),
    ).requests
    encode, denoise = profile().demand(image).phases
    assert (encode.seconds, encode.steps, encode.working_bytes) == (0.0625, 1, 2)
    assert (denoise.seconds, denoise.steps, denoise.working_bytes) == (3.75, 10, 6)
    (film,) = profile().demand(video).phases
    assert (film.seconds, film.steps) == (pytest.approx(20 / 3), 5)
    assert profile().demand(image).deadline == 32.0
    assert film.state_bytes_max == 1


def test_what_a_profile_need_not_say() -> None:
    links, naive = (
        {name: value for name, value in PROFILE[table].items() if name != "fixed_seconds"}
        for table in ("links", "links_naive")
    )
    device = {name: PROFILE["device"][name] for name in ("vram_bytes", "host_pinned_bytes")}
    phase = {
        "types": ["sdxl_generate"],
        "name": "decode",
        "components": ["sdxl.unet"],
        "seconds": 2.0,
        "seconds_per_image": 0.5,
        "step_seconds": 1.0,
    }
    said = {"links": links, "links_naive": naive, "device": device, "phase": [phase]}
    card = parse({**PROFILE, **said})
    assert (card.links.fixed_seconds, card.links_naive.fixed_seconds) == (0.0, 0.0)
    assert (card.paused_bytes, card.budget.device_bytes) == (0, 110)
    (request,) = workload(line("sdxl_generate", "a", 0.0, images=3, steps=10)).requests
    (found,) = card.demand(request).phases
    assert found.seconds == 2.0 + 0.5 * 3 + 10 * 1.0


def test_a_device_may_be_all_in_reserve() -> None:
    device = PROFILE["device"] | {"reserve_bytes": PROFILE["device"]["vram_bytes"]}
    assert parse({**PROFILE, "device": device}).budget.device_bytes == 0


def test_who_may_share_a_run() -> None:
    image, text, video = workload(
        line("sdxl_generate", "a", 0.0, images=2, steps=10),
        line("chat", "b", 0.0),
        line("wan_generate", "c", 0.0),
    ).requests
    card = profile(batching=BATCHING)
    sharing = {
        r.id: [phase.sharing for phase in card.demand(r).phases] for r in (image, text, video)
    }
    size = f"sdxl.unet {image.width}x{image.height} 10"
    assert sharing == {
        "a": [None, Sharing(size, 2, 6, 0.75, mid_phase=False)],
        "b": [Sharing("qwen.instruct", 1, 8, 0.125, mid_phase=True)],
        "c": [None],
    }
    assert [phase.sharing for phase in profile().demand(image).phases] == [None, None]
