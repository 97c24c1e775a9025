"""How the policies fare against each other: the figures of ``docs/scheduling.md``.

    make bench-sched
    python -m bench.sched_report --workload W0.jsonl --workload W1.jsonl --profile PROFILE.toml

The first serves generated traffic and writes figures and tables into the document, whose text it
keeps. The second prints the same tables for workloads that you have, and writes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench import marked, traffic
from bench.described import TRACE, TRACE_WHOLE, Facts, describe, traffic_facts
from bench.sched_plan import SEEDS, Sheets, plan
from bench.sched_runs import PROCESSES, PROFILE, Round, Row, run_all
from bench.sched_tables import markdown, number, tables
from ourvidz.cli.simulate import read_profile

DOCUMENT = Path(__file__).parents[1] / "docs" / "scheduling.md"
FIGURES = DOCUMENT.parent / "figures"
TOLD_EVERY = 10
SAYS = {
    "policies": "Every policy: mean flow over the bound's, SLO met, and the p95 of videos",
    "limits": "The default policy beside what could be had at most",
    "ablation": "The default policy without each of its ingredients",
    "strained": "The same at twice the load on half the card",
    "frontier": "Mean flow over the bound's against the p95 of videos, one setting swept",
    "load": "Mean flow, SLO met and 95th percentiles, from half to three times the load",
    "cards": "Mean flow, SLO met and loads on cards of 24 to 80 GB",
}


def write_document(document: Path = DOCUMENT, figures: Path = FIGURES) -> None:
    from bench.sched_figures import draw  # noqa: PLC0415 - whoever prints needs no matplotlib

    sheets = serve(plan(SEEDS))
    files = draw(sheets, figures)
    blocks = tables(sheets)
    for name, file in files.items():
        shown = f"![{SAYS[name]}]({file.relative_to(document.parent)})"
        blocks[name] = f"{shown}\n\n{blocks[name]}"
    blocks["traffic"] = fit_table(SEEDS)
    document.write_text(marked.fill(document.read_text("utf-8"), blocks), "utf-8")


def print_tables(workloads: Sequence[Path], profile: Path) -> None:
    for name, table in tables(serve(plan(workloads, profile))).items():
        sys.stdout.write(f"\n{SAYS[name]}\n\n{table}\n")


def serve(rounds: Sheets[Round]) -> Sheets[Row]:
    began, wanted = time.monotonic(), len(set(rounds))

    def progress(done: int, last: Round) -> None:
        if done % TOLD_EVERY == 0 or done == wanted:
            seconds = time.monotonic() - began
            sys.stderr.write(f"{done:>4} of {wanted} contests, {seconds:.0f} s: {last.policy}\n")

    rows = run_all(list(rounds), progress)
    return rounds.map(rows.__getitem__)


def fit_table(seeds: Sequence[int]) -> str:
    """The generated traffic beside the trace, over the seeds: all of it, then one card's part."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        described = list(pool.map(_described, seeds))
    whole, card = zip(*described, strict=True)
    return "\n\n".join(
        (
            _fit("all requests of the service", TRACE_WHOLE, whole),
            _fit("what one card gets", TRACE, card),
        )
    )


def _described(seed: int) -> tuple[Facts, Facts]:
    whole = traffic_facts(traffic.workload(seed, images=1.0, videos=1.0))
    return whole, describe(traffic.workload(seed), read_profile(PROFILE))


def _fit(title: str, trace: Mapping[str, float], generated: Sequence[Facts]) -> str:
    lines = []
    for name, real in trace.items():
        found = [facts[name] for facts in generated]
        middle = statistics.median(found)
        span = f"{number(min(found))} to {number(max(found))}"
        lines.append((name, number(real), number(middle), span, f"{middle / real:.2f}"))
    return markdown((title, "trace", "generated", "over the seeds", "quotient"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workload", type=Path, action="append", metavar="FILE.jsonl")
    parser.add_argument("--profile", type=Path, default=PROFILE, metavar="FILE.toml")
    args = parser.parse_args()
    if args.workload:
        print_tables(args.workload, args.profile)
    else:
        write_document()


if __name__ == "__main__":
    main()
