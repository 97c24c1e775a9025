"""Random cards, policies and jobs, each drawn from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from scheduler import Decision, JobView, PolicySettings, PricedWork, SchedulerSettings, View
from scheduler.types import Component, Demand, Links, Phase, Sharing
from tests.scheduler.shell import DEFAULTS

NAMES = "abcdef"
# Small, so that the bound on waiting takes part; the defaults otherwise.
QUICK = replace(PolicySettings(), wait_seconds_max=60.0)


class Wild(PricedWork):
    """Chooses anyone who may be chosen, preempts now and then, for as long as it may, lets some of
    those who could share a run do so, and brings in for anyone."""

    def __init__(self, seed: int, preemptions_max: int = 10) -> None:
        super().__init__(QUICK)
        self._rng = random.Random(seed)
        self._left = preemptions_max

    def choose(self, view: View, now: float) -> Decision:
        present = (*view.running, *view.waiting())
        ahead = tuple(job.id for job in present if self._rng.random() < 0.5)
        if view.running and (self._left == 0 or self._rng.random() < 0.7):
            return Decision(None, ahead=ahead)
        waiting = view.waiting()
        may = [job.id for job in waiting if view.admits(job) and not view.blocked(job.needs)]
        if not may:
            return Decision(None, ahead=ahead)
        self._left -= bool(view.running)
        return Decision(self._rng.choice(may), preempt=True, ahead=ahead)

    def company(self, job: JobView, view: View, now: float) -> Iterator[JobView]:
        return (other for other in view.sharers(job) if self._rng.random() < 0.5)


@dataclass(frozen=True)
class World:
    """``honest``: no job carries more than was estimated. ``faults``: how likely each is."""

    seed: int
    sizes: dict[str, int]
    device: int
    host: int
    links: Links
    settings: SchedulerSettings
    wild: bool
    honest: bool
    faults: float

    def policy(self) -> PricedWork:
        return Wild(self.seed, 40) if self.wild else PricedWork(self.settings.policy)

    def parts(self) -> list[Component]:
        return [Component(name, size) for name, size in self.sizes.items()]


def world(seed: int) -> World:
    """A card on which what one job needs mostly fits; one policy in four is ``Wild``."""
    rng = random.Random(f"world {seed}")
    sizes = {name: rng.randint(5, 60) for name in NAMES[: rng.randint(3, 6)]}
    largest = max(sizes.values())
    policy = [QUICK, PolicySettings(), random_policy(rng), QUICK][seed % 4]
    return World(
        seed=seed,
        sizes=sizes,
        device=rng.randint(largest + 20, sum(sizes.values()) + 60),
        host=rng.choice([rng.randint(largest + 20, sum(sizes.values()) + 20), 1000]),
        links=Links(rng.choice([10.0, 50.0]), rng.choice([8.0, 200.0]), rng.choice([0.0, 0.1])),
        settings=replace(
            DEFAULTS,
            policy=policy,
            load_attempts_max=rng.randint(1, 3),
            follow_seconds=rng.choice([0.0, 0.25]),
        ),
        wild=seed % 4 == 3,
        honest=rng.random() < 0.7,
        faults=rng.choice([0.0, 0.05, 0.2]),
    )


def random_policy(rng: random.Random) -> PolicySettings:
    return PolicySettings(
        ageing_seconds=rng.choice([1.0, 30.0, 300.0]),
        late_ageing=rng.choice([0.0, 0.5, 3.0]),
        wait_seconds_max=rng.choice([20.0, 60.0, 600.0]),
        margin_seconds=rng.choice([0.0, 15.0]),
        discount=rng.choice([0.0, 0.5, 1.0]),
        discount_seconds_max=rng.choice([0.0, 12.0]),
        hysteresis_seconds=rng.choice([0.0, 0.2, 5.0]),
        turn_seconds=rng.choice([0.0, 1.0, 10.0]),
        share_floor=rng.choice([0.0, 0.02, 0.5, 1.0]),
        share_seconds=rng.choice([1.0, 10.0]),
        price_set_ups=rng.random() < 0.8,
        preempt=rng.random() < 0.8,
        prefetch=rng.random() < 0.8,
        share_texts=rng.random() < 0.8,
        share_images=rng.random() < 0.8,
    )


class Jobs:
    """Demands of the three usual kinds, and of no kind that was ever seen."""

    def __init__(self, where: World) -> None:
        self._rng = rng = random.Random(f"jobs {where.seed}")
        self._names = list(where.sizes)
        self._text = rng.choice(self._names)
        self._image = [rng.choice(self._names) for _ in range(3)]
        self._video = [rng.choice(self._names) for _ in range(2)]

    def demand(self, job: str, now: float) -> Demand:
        rng = self._rng
        kind = rng.choice(["text", "text", "image", "image", "video", "odd"])
        phases = tuple(getattr(self, f"_{kind}_phases")())
        arrival = now - rng.choice([0.0, 0.0, rng.uniform(0.0, 40.0)])
        return Demand(
            job=job,
            phases=phases,
            job_class=rng.choice(["fast", "normal"]),
            user=rng.choice("uvw"),
            arrival=arrival,
            deadline=rng.choice([None, arrival + rng.uniform(0.0, 60.0)]),
            kind="" if kind == "odd" else kind,
        )

    def _phase(
        self,
        names: Sequence[str],
        seconds: float,
        steps: int,
        sharing: Sharing | None = None,
    ) -> Phase:
        rng = self._rng
        state_max = rng.choice([None, 0, 2, 5])
        work = rng.choice([0, 1, rng.randint(0, 20)])
        return Phase("p", tuple(names), work, seconds, steps, state_max, sharing)

    def _text_phases(self) -> Iterator[Phase]:
        sharing = Sharing("text", self._rng.randint(1, 2), 4, 0.1, mid_phase=True)
        steps = self._rng.choice([1, 4, 12])
        phase = self._phase([self._text], self._rng.uniform(0.2, 6.0), steps, sharing)
        yield replace(phase, steps_expected=self._rng.choice([None, (steps + 1) // 2]))

    def _image_phases(self) -> Iterator[Phase]:
        encoder, unet, vae = self._image
        steps = self._rng.choice([3, 5])
        key, units = f"image {steps}", self._rng.randint(1, 2)
        sharing = Sharing(key, units, 4, self._rng.choice([0.2, 0.9]), mid_phase=False)
        yield self._phase([encoder], 0.5, 1)
        yield self._phase([unet], self._rng.uniform(2.0, 10.0), steps, sharing)
        yield self._phase([vae], 0.5, 1)

    def _video_phases(self) -> Iterator[Phase]:
        encoder, transformer = self._video
        yield self._phase([encoder], 0.5, 1)
        yield self._phase([transformer, encoder], self._rng.uniform(10.0, 40.0), 8)

    def _odd_phases(self) -> Iterator[Phase]:
        for _ in range(self._rng.randint(1, 3)):
            names = self._rng.sample(self._names, self._rng.randint(0, 3))
            seconds, steps = self._rng.choice([0.0, 1.0, 9.0]), self._rng.randint(0, 4)
            yield self._phase(names, seconds, steps)
