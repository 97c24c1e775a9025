"""The scheduler's state for those who look at it: snapshot, one line, audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scheduler.errors import InvariantBroken
from scheduler.index import Index
from scheduler.job import Job, Run, Standing
from scheduler.ledger import Account, Pool
from scheduler.plan import Estimate
from scheduler.residency import Residency
from scheduler.types import Tier


def snapshot(index: Index, plan: Sequence[Estimate]) -> dict[str, Any]:
    waiting = [(index.jobs[e.job], e) for e in plan if e.position > 0]
    return {
        "components": {r.name: _component(r) for r in index.residencies.values()},
        "ledger": {"device": _pool(index.ledger.device), "host": _pool(index.ledger.host)},
        "running": [_run(run) for run in index.runs.values()],
        "waiting": [
            {
                "job": job.id,
                "class": job.demand.job_class,
                "standing": job.standing.value,
                "phase": job.current.name,
                "step": job.step,
                "carried_bytes": job.carried,
                "position": estimate.position,
                "start_seconds": estimate.start_seconds,
                "finish_seconds": estimate.finish_seconds,
                "finish_p90_seconds": estimate.finish_p90_seconds,
            }
            for job, estimate in waiting
        ],
    }


def describe(index: Index, target: Job | None) -> str:
    """One line: what runs, what is next, how many wait, what is given out."""
    runs = ",".join(_place(run.job) for run in index.runs.values())
    device, host = index.ledger.device, index.ledger.host
    return (
        f"<Scheduler running={runs or '-'} target={target.id if target else '-'} "
        f"waiting={len(index.jobs) - len(index.runs)} "
        f"device={device.reserved}/{device.budget} host={host.reserved}/{host.budget}>"
    )


def check(index: Index, target: Job | None, story: str) -> None:
    """Raises ``InvariantBroken`` unless the ledger is what residencies, jobs and runs make it, all
    that is in flight has an owner, and what runs has its components."""
    residencies, ledger = index.residencies.values(), index.ledger
    host: dict[Account, int] = {("weights", r.name): r.size for r in residencies if r.master}
    device: dict[Account, int] = {("weights", r.name): r.size for r in residencies if r.on_device}
    for job in index.begun.values():
        device["state", job.id] = job.carried - job.owed
    for run in index.runs.values():
        account = ("run", str(run.lease.id))
        device[account] = ledger.device.accounts.get(account, 0)
    problems = [
        *(_check_component(r) for r in residencies),
        *(_check_run(index, run) for run in index.runs.values()),
        *(_check_job(index, job) for job in index.jobs.values()),
        None if target is None else _check_target(index, target),
        ledger.device.audit(device),
        ledger.host.audit(host),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise InvariantBroken("\n".join([*found, story]))


def _check_component(residency: Residency) -> str | None:
    name, tier = residency.name, residency.tier
    if residency.in_flight != bool(residency.owner):
        return f"component {name} is {tier.value}, its owner is {residency.owner!r}"
    if residency.on_device and not residency.master:
        return f"component {name} is {tier.value} without a master"
    return None


def _check_target(index: Index, target: Job) -> str | None:
    if index.jobs.get(target.id) is target and target.standing is not Standing.RUNNING:
        return None
    return f"target {target.id} is {target.standing.value}"


def _check_run(index: Index, run: Run) -> str | None:
    job = run.job
    working_bytes = index.ledger.device.accounts.get(("run", str(run.lease.id)), -1)
    if index.jobs.get(job.id) is not job or job.standing is not Standing.RUNNING:
        return f"{run.lease} lives, its job is {job.standing.value}"
    if working_bytes < job.current.working_bytes:
        return f"{run.lease} has {working_bytes} bytes to work in"
    for name in job.components[job.phase]:
        tier = index.residencies[name].tier
        if tier is not Tier.RESIDENT:
            return f"{run.lease} uses {name}, which is {tier.value}"
    return None


def _check_job(index: Index, job: Job) -> str | None:
    if (index.run_of(job) is not None) != (job.standing is Standing.RUNNING):
        return f"job {job.id} is {job.standing.value} without its lease"
    if job.begun != (job.id in index.begun) or not 0 <= job.owed <= job.carried:
        return f"job {job.id}: begun {job.begun}, carries {job.carried}, owes {job.owed}"
    if job.carried and not job.begun:
        return f"job {job.id} carries {job.carried} bytes and was never started"
    return None


def _place(job: Job) -> str:
    return f"{job.id}:{job.current.name}@{job.step}/{job.current.steps}"


def _component(residency: Residency) -> dict[str, Any]:
    failure = residency.failure
    return {
        "tier": residency.tier.value,
        "bytes": residency.size,
        "host": residency.master,
        "device": residency.on_device,
        "error": failure.detail if failure else None,
    }


def _pool(pool: Pool) -> dict[str, Any]:
    return {"budget": pool.budget, "reserved": pool.reserved, "by": pool.totals()}


def _run(run: Run) -> dict[str, Any]:
    job = run.job
    return {
        "lease": run.lease.id,
        "run": run.number,
        "job": job.id,
        "class": job.demand.job_class,
        "phase": job.current.name,
        "step": job.step,
        "steps": job.current.steps,
        "pausing": run.pausing,
        "cancelling": run.cancelling,
    }
