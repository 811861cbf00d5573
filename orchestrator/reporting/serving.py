"""How the teachers served a rung, in words and in rows of a table. Pure: plain figures in, sentences and rows out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.serving import Summary, merged, over_epochs
from orchestrator.reporting.recorded import Values
from orchestrator.reporting.verdict import listed

LITTLE = 0.0005
SECONDS_FROM_MS = 999.5


@dataclass(frozen=True)
class Row:
    """What a teacher did for all workers, or (`rank`) for one of them. `restarts`: None where no pool says."""

    teacher: str
    rank: int | None
    summary: Summary
    restarts: int | None


def by_worker(history: Sequence[Values]) -> list[dict[str, Summary]]:
    """Each worker's summaries by teacher, over all epochs that have any."""
    epochs = [record.get("serving", []) for record in history]
    found: list[dict[str, Summary]] = []
    for rank in range(max(map(len, epochs), default=0)):
        own = [workers[rank] for workers in epochs if rank < len(workers)]
        teachers = dict.fromkeys(teacher for one in own for teacher in one)
        found.append({teacher: over_epochs([one[teacher] for one in own if teacher in one]) for teacher in teachers})
    return found


def rows(workers: Sequence[Mapping[str, Summary]], pool: Values | None) -> list[Row]:
    """A row for each teacher, and where there are several workers one for each of them below it."""
    found = []
    for teacher, whole in merged(workers).items():
        found.append(Row(teacher, None, whole, pool["restarts"].get(teacher, 0) if pool else None))
        if len(workers) > 1:
            found += [Row(teacher, rank, one[teacher], None) for rank, one in enumerate(workers) if teacher in one]
    return found


def sentences(rung: str, workers: Sequence[Mapping[str, Summary]], pool: Values | None) -> list[str]:
    """The main thing: how long the student waited and for whom; then what went wrong."""
    said = [_waiting(rung, workers), _faults(merged(workers), pool)] if any(workers) else []
    if pool and pool["dropped"]:
        names = listed([str(name) for name in pool["dropped"]])
        said.append(f"Dropped on the way: {names}. This is not the student that all of its teachers would have made.")
    return said


def passes_sentence(passes: Mapping[str, Mapping[str, int]]) -> str:
    """What of the teachers' work the store has saved; empty where it has saved none, or nobody kept any."""
    asked, computed = (sum(one[name] for one in passes.values()) for name in ("asked", "computed"))
    if not any(one["read"] or one["written"] for one in passes.values()):
        return ""
    each = listed([f"{name} {one['computed']:,} of {one['asked']:,}" for name, one in passes.items()])
    return (
        f"The store spared {share_text(1 - computed / asked)} of the teachers' work: computed were, in samples, {each}."
    )


def share_text(share: float) -> str:
    return "less than 0.1 %" if 0 < share < LITTLE else f"{100 * share:.1f} %"


def time_text(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < SECONDS_FROM_MS else f"{milliseconds / 1000:.3g} s"


def _waiting(rung: str, workers: Sequence[Mapping[str, Summary]]) -> str:
    shares = {teacher: one["waited_share"] for teacher, one in merged(workers).items()}
    name = "The student" if rung == "student" else rung
    who = f"{name}'s {len(workers)} workers" if len(workers) > 1 else name
    if not any(shares.values()):
        return f"{who} never waited for knowledge."
    longest = max(shares, key=shares.__getitem__)
    whole, part = sum(shares.values()), shares[longest]
    mostly = "mostly" if part > whole / 2 else "longest"
    for_whom = f"{mostly} for {longest} ({share_text(part)})" if len(shares) > 1 else f"for {longest}"
    return f"{who} waited {share_text(whole)} of the time, {for_whom}{_slowest(workers)}."


def _slowest(workers: Sequence[Mapping[str, Summary]]) -> str:
    if len(workers) < 2:
        return ""
    waits = [sum(one["waited_share"] for one in worker.values()) for worker in workers]
    return f"; worker {waits.index(max(waits))} longest ({share_text(max(waits))})"


def _faults(teachers: Mapping[str, Summary], pool: Values | None) -> str:
    again = {teacher: one["retries"] for teacher, one in teachers.items()}
    restarts: dict[str, Any] = dict(pool["restarts"]) if pool else {}
    said = [
        f"{what}: {_counts(counts)}"
        for what, counts in (("Asked again elsewhere", again), ("Replicas started again", restarts))
        if any(counts.values())
    ]
    return ". ".join(said) + "." if said else "No request had to be asked again, and no replica was started again."


def _counts(counts: Mapping[str, int]) -> str:
    return listed([f"{name} {count:,}" for name, count in counts.items() if count])
