"""Whether a run goes on without teachers that are lost for good, and who then teaches."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def left(teachers: Iterable[str], dropped: Collection[str]) -> tuple[str, ...]:
    """Those of the teachers who are still heard."""
    return tuple(name for name in teachers if name not in dropped)


def may_go_on(
    lost: Collection[str], may_be_dropped: Collection[str], dropped: Collection[str], heard: Iterable[Collection[str]]
) -> bool:
    """If every one of the `lost` may be dropped, and each loss has somebody left to hear. `dropped`: earlier; `heard`:
    the teachers of each loss, none of one on labels."""
    gone = {*lost, *dropped}
    return set(lost) <= set(may_be_dropped) and all(left(names, gone) for names in heard if names)
