"""Which queues a worker takes from, some of whose models cannot be opened."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ourvidz.config.settings import Model, Queue, Settings

_FAMILIES = {"sdxl_generate": "sdxl", "wan_generate": "wan"}
_NAMES = {
    "enhance_base": "qwen_base",
    "enhance_instruct": "qwen_instruct",
    "chat": "qwen_instruct",
}


def consumed(settings: Settings, broken: Collection[str]) -> Mapping[str, Queue]:
    """The configured queues, without those that are left to others: where workers share them, one
    all of whose types need a model that is ``broken`` here. Nobody else takes from queues of this
    worker's own, so there such jobs are answered as failed instead."""
    if settings.queue_server.kind == "embedded":
        return settings.queues
    return {
        name: queue
        for name, queue in settings.queues.items()
        if not queue.types or any(_can(kind, settings.models, broken) for kind in queue.types)
    }


def _can(kind: str, models: Mapping[str, Model], broken: Collection[str]) -> bool:
    candidates = list(_candidates(kind, models))
    return not candidates or any(name not in broken for name in candidates)


def _candidates(kind: str, models: Mapping[str, Model]) -> Iterator[str]:
    for name, model in models.items():
        if name == _NAMES.get(kind) or model.family == _FAMILIES.get(kind):
            yield name
