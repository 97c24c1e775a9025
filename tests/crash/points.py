"""Where a worker is killed: every call of every port, before it, within it, and when it has done
its work and nobody knows yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.crash.scenes import SCENES, Kind, Mode
from tests.crash.trap import ANY, REMOVE, RENAME, STEP, Site, When

OUTSIDE: tuple[When, ...] = ("before", "after")
THROUGHOUT: tuple[When, ...] = ("before", "inside", "after")


@dataclass(frozen=True, slots=True)
class Point:
    """A site in a scene, and how what was cut off there is put right."""

    scene: str
    site: Site
    kind: Kind
    mode: Mode

    def __str__(self) -> str:
        return f"{self.scene}: {self.site}, {self.kind}, {self.mode} worker"


Row = tuple[str, str, Sequence[str], int, Sequence[When]]


def _rows(scene: str, call: str, *of: str, n: int = 1, whens: Sequence[When] = OUTSIDE) -> Row:
    """Every one of ``n`` calls of each kind."""
    return scene, call, of or ("",), n, whens


# A crowd of jobs makes more calls than these, in an order that is not always the same: it is killed
# at every eleventh of them, whatever that is.
CROWD_CALLS = 370
CROWD = range(11, CROWD_CALLS, 11)

ROWS: Sequence[Row] = (
    # Claim, accept, admit.
    _rows("images", "JobSource.recover"),
    _rows("images", "JobSource.claim", "sdxl_queue", whens=THROUGHOUT),
    _rows("text", "JobSource.claim", "chat_queue"),
    _rows("video", "JobSource.claim", "wan_queue"),
    _rows("images", "JobSource.wait", "wan_queue", whens=("before",)),
    _rows("held", "JobSource.wait", "wan_queue", whens=("after",)),
    _rows("images", "JobSource.mark"),
    _rows("malformed", "JobSource.mark"),
    _rows("images", "Journal.accept", whens=THROUGHOUT),
    _rows("images", "Admission.admit"),
    _rows("images", "References.fetch"),
    _rows("images", "AssetStore.get"),
    _rows("images", RENAME, "spool "),
    # Plan, begin, run.
    _rows("images", "Executor.components"),
    _rows("images", "Executor.open"),
    _rows("images", "Executor.snapshot"),
    _rows("images", "Executor.plan"),
    _rows("images", "Executor.begin"),
    _rows("images", "Journal.move", "waiting", "running", whens=THROUGHOUT),
    _rows("images", "JobSource.count_attempt", whens=THROUGHOUT),
    _rows("images", "Journal.set_aside", whens=THROUGHOUT),
    _rows("images", "Executor.execute", "stage", "load", "start 0/0", "start 0/1", "start 0/2"),
    _rows("images", STEP, "encode", whens=("before",)),
    _rows("images", STEP, "denoise", n=4, whens=("before",)),
    _rows("images", STEP, "decode", n=3, whens=("before",)),
    _rows("video", STEP, "denoise", n=4, whens=("before",)),
    _rows("text", STEP, "generate", n=2, whens=("before",)),
    _rows("chain", "Executor.plan", n=2),
    _rows("chain", "Journal.add_text", whens=THROUGHOUT),
    _rows("chain", "Executor.begin", n=2),
    _rows("chain", "Executor.forget", n=2),
    _rows("chain", "Executor.execute", "evict", "start 0/0", "start 1/0", "start 1/1", "start 1/2"),
    _rows("video", "Executor.execute", "start 0/0", "start 0/1", "start 0/2"),
    _rows("text", "Executor.execute", "start 0/0"),
    _rows("images", "Executor.forget"),
    # Each file: encoded, renamed, in the journal, in the store.
    _rows("images", "Renderer.image", "0", "1", "2"),
    _rows("images", RENAME, "spool .png", "spool .webp", n=3),
    _rows("images", "Journal.add_asset", n=3, whens=THROUGHOUT),
    _rows("images", "AssetStore.put", "image/png", "image/webp", n=3),
    _rows("images", RENAME, "store .png", "store .webp", n=3),
    _rows("chain", "Renderer.image", "0", "1"),
    _rows("chain", "Journal.add_asset", n=2),
    _rows("chain", "AssetStore.put", "image/png", "image/webp"),
    _rows("video", "Renderer.video"),
    _rows("video", RENAME, "spool .mp4", "spool .webp"),
    _rows("video", "Journal.add_asset", whens=THROUGHOUT),
    _rows("video", "AssetStore.put", "video/mp4", "image/webp"),
    _rows("video", RENAME, "store .mp4"),
    # The end, and the answer.
    *(
        _rows(scene, call, *of, whens=THROUGHOUT)
        for scene in ("images", "chain", "text", "video")
        for call, of in (
            ("Journal.finish", ("completed",)),
            ("Journal.uploaded", ()),
            ("Journal.answered", ()),
            ("JobSource.acknowledge", ()),
        )
    ),
    *(
        _rows(scene, "Notifier.notify", "completed")
        for scene in ("images", "chain", "text", "video")
    ),
    _rows("images", "Journal.answers", n=2),
    _rows("images", "Journal.get", n=2),
    _rows("images", REMOVE, whens=THROUGHOUT),
    _rows("away", "Notifier.notify", "completed", n=2),
    _rows("away", "Journal.answer_failed", whens=THROUGHOUT),
    _rows("parked", "Journal.answer_failed", "park", whens=THROUGHOUT),
    _rows("parked", "Journal.parked_answers"),
    _rows("parked", "Journal.unpark", whens=THROUGHOUT),
    _rows("parked", "Notifier.notify", "completed", n=2),
    # What is no job, what comes twice, what is given up.
    _rows("malformed", "Journal.reject", whens=THROUGHOUT),
    _rows("malformed", "JobSource.dead_letter", n=2, whens=THROUGHOUT),
    _rows("malformed", "Notifier.notify", "failed"),
    _rows("malformed", "Journal.answered", whens=THROUGHOUT),
    _rows("twice", "Journal.adopt", whens=THROUGHOUT),
    _rows("twice", "JobSource.acknowledge", n=2, whens=THROUGHOUT),
    _rows("conflict", "Journal.accept", n=2),
    _rows("conflict", "JobSource.dead_letter", whens=THROUGHOUT),
    _rows("exhausted", "Journal.finish", "failed", whens=THROUGHOUT),
    _rows("exhausted", "JobSource.dead_letter", whens=THROUGHOUT),
    _rows("exhausted", "Notifier.notify", "failed"),
    # Leases that are held, and handed back.
    _rows("held", "Notifier.notify", "processing"),
    _rows("held", "JobSource.renew", n=2, whens=THROUGHOUT),
    _rows("held", "JobSource.reap", whens=THROUGHOUT),
    _rows("drain", "Executor.request", "cancel"),
    _rows("drain", "Journal.requeue", whens=THROUGHOUT),
    _rows("drain", "JobSource.hand_back", whens=THROUGHOUT),
    # Whoever calls the API, and calls again.
    _rows("api", "Journal.known", n=2),
    _rows("api", "JobSource.push", n=2, whens=THROUGHOUT),
    _rows("api", "Journal.accept", n=3, whens=THROUGHOUT),
    _rows("api", "Journal.recent"),
    _rows("api", "JobSource.snapshot"),
    _rows("api", "Journal.rejected"),
    _rows("api", "JobSource.dead_letters"),
    _rows("api", "Journal.trouble"),
    _rows("api", "Journal.cancel_queued", whens=THROUGHOUT),
    _rows("api", "JobSource.mark", n=2, whens=THROUGHOUT),
    _rows("api", "Executor.request", "cancel"),
    _rows("api", "Journal.finish", "cancelled", whens=THROUGHOUT),
    _rows("api", "Notifier.notify", "failed", n=2),
    # A start after a death.
    _rows("again", "JobSource.recover", whens=THROUGHOUT),
    _rows("again", "Journal.in_states", n=3),
    _rows("again", "Journal.aside"),
    _rows("again", "Journal.requeue", whens=THROUGHOUT),
    _rows("again", "Journal.parked"),
    _rows("again", "JobSource.count_attempt"),
    _rows("halfway", "Journal.get"),
    _rows("halfway", "Journal.assets"),
    _rows("halfway", "Journal.texts"),
    _rows("halfway", "Executor.execute", "start 1/0", "start 1/2"),
    _rows("halfway", "Renderer.image", "1"),
    _rows("halfway", "Journal.add_asset", whens=THROUGHOUT),
    _rows("halfway", "Journal.finish", "completed", whens=THROUGHOUT),
    _rows("halfway", "AssetStore.put", "image/png", n=2),
    _rows("again", REMOVE, whens=("before", "after")),
    _rows("saved", STEP, "denoise", n=4, whens=("before",)),
    _rows("saved", RENAME, "spool .json", n=4),
    _rows("resumed", "Executor.plan"),
    _rows("resumed", STEP, "denoise", n=2, whens=("before",)),
    _rows("resumed", RENAME, "spool .json", n=2),
    _rows("resumed", "Renderer.video"),
    _rows("rendered", "JobSource.recover", whens=THROUGHOUT),
    _rows("rendered", "Journal.in_states", n=3),
    _rows("rendered", "AssetStore.put", "image/png"),
    _rows("rendered", "Journal.uploaded", whens=THROUGHOUT),
    _rows("rendered", "Notifier.notify", "completed"),
    _rows("rendered", "JobSource.acknowledge"),
    _rows("answered", "Journal.answers"),
    _rows("answered", "Notifier.notify", "completed"),
    _rows("answered", "Journal.answered", whens=THROUGHOUT),
    _rows("answered", "Journal.adopt"),
    _rows("answered", REMOVE, whens=THROUGHOUT),
)


def points() -> Iterator[Point]:
    """Every one of them, in the ways in which what it cuts off is put right."""
    for nth in CROWD:
        site = Site(ANY, nth=nth, when=OUTSIDE[nth % 2])
        yield from (Point("crowd", site, *way) for way in SCENES["crowd"].ways)
    for scene, call, kinds, count, whens in ROWS:
        for of in kinds:
            for nth in range(1, count + 1):
                for when in whens:
                    site = Site(call, of, nth, when)
                    for kind, mode in _ways(scene, site):
                        yield Point(scene, site, kind, mode)


def _ways(scene: str, site: Site) -> Iterator[tuple[Kind, Mode]]:
    of_queue = site.call.startswith("JobSource.")
    for kind, mode in SCENES[scene].ways:
        # On a server its one script is all there is inside of a call.
        if not (kind == "redis" and of_queue and site.when == "inside"):
            yield kind, mode
            if (kind, mode) == ("redis", "other") and of_queue:
                yield kind, "same"
