"""The report on the policies: what it compares, its tables and figures, and the text it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench import marked, sched_figures, sched_report, sched_runs
from bench.sched_plan import ABLATION, BASE, DEFAULT, Sheets, plan
from bench.sched_runs import PROFILE, Round, Row, changed, default_settings, run, run_all
from bench.sched_tables import tables
from ourvidz.cli.simulate import read_profile, read_workload
from scheduler.contest import CONTESTANTS, contest

ROOT = Path(__file__).parents[1]
DRAWN = set(sched_report.SAYS) - {"limits"}


@pytest.fixture
def workload(tmp_path: Path) -> Path:
    """Two videos, and images and texts beside them, of which none fits the first video's end."""
    path = tmp_path / "tiny.jsonl"
    lines: list[dict[str, Any]] = [
        {"id": f"v{n}", "arrival_s": 5.0 * n, "type": "wan_generate", "frames": 81, "steps": 50}
        for n in range(2)
    ]
    for n in range(4):
        at = 8.0 + 30 * n
        shape = {"type": "sdxl_generate", "images": 1 + n % 3, "steps": 30}
        lines.append({"id": f"i{n}", "arrival_s": at, **shape})
        lines.append({"id": f"c{n}", "arrival_s": at + 1, "type": "chat", "tokens": 100})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pool whose start costs nothing."""
    monkeypatch.setattr(sched_runs, "ProcessPoolExecutor", ThreadPoolExecutor)
    yield
    sched_runs._workload.cache_clear()


def row(round_: Round) -> Row:
    """What a contest might have given, made up from what distinguishes it."""
    seed = round_.source if isinstance(round_.source, int) else 0
    size = (round_.vram_bytes or 0) / 1e11
    slow = 4.0 if round_.policy == BASE else 1.0
    flow = slow * (10.0 + seed) * round_.load * (1 + size + len(round_.changes))
    quantiles = {"chat": flow, "image": 2 * flow, "video": 100.0 + seed}
    if round_.policy == DEFAULT:
        quantiles["video"] *= 1.25
    return {
        "policy": round_.policy,
        "mean_flow_s": flow,
        "bound_mean_flow_s": 10.0 + seed,
        "ratio": flow / (10.0 + seed),
        "slo": 0.9,
        "slo_by_class": {"chat": 1.0, "image": 0.8, "video": None},
        "p50": quantiles,
        "p95": quantiles,
        "p99": quantiles,
        "max_slowdown": 3.5,
        "loads": 1234,
        "belady_misses": 1000,
        "load_s": 10.0,
        "gpu_busy": 0.1,
        "preemptions": 7,
        "starved": 0,
    }


@pytest.fixture(scope="module")
def sheets() -> Sheets[Row]:
    return plan(sched_report.SEEDS).map(row)


def test_every_policy_is_compared_over_every_source() -> None:
    found = plan((0, 1, 2, 3)).policies
    assert set(found) == set(CONTESTANTS)
    assert [r.source for r in found[DEFAULT]] == [0, 1, 2, 3]


def test_contests_that_sheets_have_in_common_are_one() -> None:
    sheets = plan((0, 1))
    whole = next(name for name, changes in ABLATION if not changes)
    shared = sheets.policies[DEFAULT]
    assert sheets.ablation[whole] == sheets.load[DEFAULT, 1.0] == shared
    assert len(set(sheets)) < len(list(sheets))


def test_ingredients_and_the_frontier_are_settings_that_exist() -> None:
    sheets = plan((0,))
    for rounds in (*sheets.ablation.values(), *sheets.frontier.values()):
        for round_ in rounds:
            changed(default_settings(), round_.changes)


def test_changes_reach_the_policy_and_what_is_round_it() -> None:
    settings = changed(default_settings(), {"preempt": False, "waiting_jobs_max": 7})
    assert (settings.policy.preempt, settings.waiting_jobs_max) == (False, 7)
    assert settings.policy.prefetch is default_settings().policy.prefetch
    with pytest.raises(TypeError, match="unheard_of"):
        changed(settings, {"unheard_of": 1})


def test_a_round_is_the_contest_it_names(workload: Path) -> None:
    wanted = contest(BASE, read_workload(workload), read_profile(PROFILE), default_settings())
    assert run(Round(BASE, workload)) == wanted


def test_a_smaller_card_loads_more_often(workload: Path) -> None:
    own = run(Round(BASE, workload))
    assert run(Round(BASE, workload, vram_bytes=51_000_000_000)) == own
    assert run(Round(BASE, workload, vram_bytes=25_500_000_000))["loads"] > own["loads"]


def test_load_brings_the_same_requests_closer_together(workload: Path) -> None:
    own, dense = run(Round(BASE, workload)), run(Round(BASE, workload, load=3.0))
    assert dense["jobs"] == own["jobs"]
    assert dense["mean_flow_s"] > own["mean_flow_s"]


@pytest.mark.usefixtures("in_process")
def test_each_round_is_run_once_and_told_of(workload: Path) -> None:
    told: list[tuple[int, Round]] = []
    rounds = [Round(BASE, workload), Round("edf", workload), Round(BASE, workload)]
    rows = run_all(rounds, lambda done, last: told.append((done, last)))
    assert set(rows) == set(rounds)
    assert [done for done, _ in told] == [1, 2]


@pytest.mark.usefixtures("in_process")
def test_own_workloads_are_printed_and_nothing_is_written(
    workload: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sched_report", "--workload", str(workload)])
    before = sched_report.DOCUMENT.read_bytes()
    sched_report.main()
    printed = capsys.readouterr().out
    assert sched_report.DOCUMENT.read_bytes() == before
    assert all(title in printed for title in sched_report.SAYS.values())
    assert all(f"| {name} |" in printed for name in CONTESTANTS)


def test_a_line_has_medians_and_what_they_lie_between(sheets: Sheets[Row]) -> None:
    summary, by_class = tables(sheets)["policies"].split("\n\n")
    line = next(x for x in summary.splitlines() if x.startswith(f"| {DEFAULT} |"))
    cells = "12.0 | 1.000 | 90.0% | 1.250 | 3.50 | 1,234 | 1,000 | 10.0 | 7 | 0"
    assert line == f"| {DEFAULT} | {cells} |"
    line = next(x for x in by_class.splitlines() if x.startswith(f"| {BASE} |"))
    assert line.startswith("| fifo-lru | 100.0% / 80.0% / - | 48.0 / 96.0 / 102 |")


def test_curves_are_measured_against_the_same_load(sheets: Sheets[Row]) -> None:
    lines = tables(sheets)["load"].splitlines()
    line = next(x for x in lines if x.startswith(f"| {DEFAULT} | 3 |"))
    assert "| 33.0 | 3.00 | 90.0% | 33.0 / 66.0 / 126 | 1.250 |" in line


def test_tables_have_as_many_cells_in_each_line(sheets: Sheets[Row]) -> None:
    for table in tables(sheets).values():
        for part in table.split("\n\n"):
            assert len({line.count("|") for line in part.splitlines()}) == 1


def test_generated_traffic_stands_beside_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sched_report, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(sched_report, "TRACE_WHOLE", {"requests": 100})
    monkeypatch.setattr(sched_report, "TRACE", {"utilisation": 0.1})
    facts = [({"requests": 80}, {"utilisation": 0.05}), ({"requests": 90}, {"utilisation": 0.2})]
    monkeypatch.setattr(sched_report, "_described", facts.__getitem__)
    whole, card = sched_report.fit_table((0, 1)).split("\n\n")
    assert whole.splitlines()[-1] == "| requests | 100 | 85.0 | 80 to 90 | 0.85 |"
    assert card.splitlines()[-1] == "| utilisation | 0.100 | 0.125 | 0.0500 to 0.200 | 1.25 |"


@pytest.mark.slow
def test_the_same_rows_draw_the_same_bytes(sheets: Sheets[Row], tmp_path: Path) -> None:
    first, again = (sched_figures.draw(sheets, tmp_path / name) for name in ("a", "b"))
    assert set(first) == DRAWN
    for name, path in first.items():
        assert path.read_bytes() == again[name].read_bytes()
        assert b"<svg" in path.read_bytes()


TEXT = """# Title

<!-- figures:one -->
old | figures
<!-- /figures:one -->
kept <!-- a remark -->
<!-- figures:two -->
<!-- /figures:two -->
end, without a newline"""


def test_figures_are_replaced_and_all_else_is_kept() -> None:
    filled = marked.fill(TEXT, {"one": "1\n\\1", "two": "2"})
    assert filled == TEXT.replace("old | figures", "1\n\\1").replace(
        "two -->\n<!--", "two -->\n2\n<!--"
    )
    assert marked.fill(filled, {"one": "old | figures", "two": "2"}) == filled.replace(
        "1\n\\1", "old | figures"
    )


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (TEXT, {"one": "1"}),
        (TEXT, {"one": "1", "two": "2", "three": "3"}),
        (TEXT + "\n" + TEXT, {"one": "1", "two": "2"}),
        (TEXT.replace("/figures:two", "figures:two"), {"one": "1", "two": "2"}),
    ],
    ids=["no content", "no place", "twice", "no end"],
)
def test_a_document_that_does_not_fit_its_figures_is_left_alone(
    text: str, blocks: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="the text has figures"):
        marked.fill(text, blocks)


@pytest.mark.slow
def test_the_document_is_written_round_its_text(
    sheets: Sheets[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "scheduling.md"
    document.write_text(sched_report.DOCUMENT.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(sched_report, "serve", lambda _: sheets)
    monkeypatch.setattr(sched_report, "fit_table", lambda _: "the fit")
    sched_report.write_document(document, tmp_path / "figures")
    empty = dict.fromkeys([*sched_report.SAYS, "traffic"], "")
    written = document.read_text("utf-8")
    assert marked.fill(written, empty) == marked.fill(sched_report.DOCUMENT.read_text(), empty)
    assert "the fit" in written
    for name in DRAWN:
        assert f"(figures/{name}.svg)" in written
        assert (tmp_path / "figures" / f"{name}.svg").is_file()


def test_the_shipped_document_shows_figures_that_exist() -> None:
    text = sched_report.DOCUMENT.read_text("utf-8")
    assert "-->\n<!-- /figures" not in text, "none is left out"
    for name in DRAWN:
        assert f"(figures/{name}.svg)" in text
        assert (sched_report.FIGURES / f"{name}.svg").is_file()
