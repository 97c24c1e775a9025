"""A worker with a broken model leaves to others what only that model makes."""

from __future__ import annotations

from typing import Any

import pytest
from support.house import OpenHouse, job_id, payload

from ourvidz.adapters.device_fake import FakeDevice
from ourvidz.config.settings import Model, Queue, QueueServer, Settings
from ourvidz.service.offers import consumed

MODELS = {
    "sdxl": {"family": "sdxl", "path": "a"},
    "wan": {"family": "wan", "path": "b"},
    "qwen_base": {"family": "qwen", "path": "c"},
    "qwen_instruct": {"family": "qwen", "path": "d"},
}
QUEUES = {
    "images": {"types": ["sdxl_generate"]},
    "videos": {"types": ["wan_generate"]},
    "texts": {"types": ["enhance_base", "enhance_instruct", "chat"]},
    "any": {},
}


def left(broken: list[str], kind: str = "redis", **more: Any) -> set[str]:
    settings = Settings.model_construct(
        models={name: Model.model_validate(model) for name, model in (MODELS | more).items()},
        queues={name: Queue.model_validate(queue) for name, queue in QUEUES.items()},
        queue_server=QueueServer.model_validate({"kind": kind}),
    )
    return QUEUES.keys() - consumed(settings, broken).keys()


@pytest.mark.parametrize(
    ("broken", "gone"),
    [
        ([], set()),
        (["wan"], {"videos"}),
        (["sdxl", "wan"], {"images", "videos"}),
        (["qwen_base"], set()),
        (["qwen_base", "qwen_instruct"], {"texts"}),
    ],
)
def test_what_is_left_to_others(broken: list[str], gone: set[str]) -> None:
    assert left(broken) == gone
    assert left(broken, "upstash") == gone
    assert left(broken, "embedded") == set(), "nobody else takes from them"


def test_another_model_of_the_family_is_enough() -> None:
    assert left(["wan"], vace={"family": "wan", "path": "e"}) == set()


class Broken(FakeDevice):
    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "broken_models": {"wan": "no such file"}}


@pytest.mark.anyio
async def test_health_names_a_broken_model(open_house: OpenHouse) -> None:
    async with open_house(Broken(), **{"callback.progress": False}) as house:
        assert house.service.health()["alarms"] == ["model_broken:wan"]
        await house.push("sdxl_queue", payload("a"))
        assert (await house.ended("a"))["status"] == "completed"
        assert len(house.terminal(job_id("a"))) == 1
