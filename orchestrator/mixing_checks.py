"""Whether losses can learn from samples that a view has mixed, which have two labels. Imports torch, not Ray."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from actors.combination import metadata_of_rule
from actors.specs import LossSpec

WAY_OUT = "use another, or a view that mixes no samples"


def check_labels_of_mixtures(losses: Sequence[LossSpec]) -> None:
    """Raises ValueError at the first loss or rule that takes one label for a sample."""
    for loss in losses:
        arguments = _arguments(loss)
        if loss.on == "labels":
            if "reduction" not in arguments:
                raise ValueError(
                    f"{loss.key}.loss: data.views mixes samples, and the loss on two labels is taken of each "
                    f"sample, for which {loss.loss.target} needs an argument `reduction`; {WAY_OUT}"
                )
            continue
        if "labels" in arguments:
            raise ValueError(
                f"{loss.key}.loss: {loss.loss.target} takes one label for each sample, and data.views mixes samples, "
                f"which have two; {WAY_OUT}"
            )
        if "labels" in metadata_of_rule(loss.ensemble, f"{loss.key}.ensemble").arguments:
            raise ValueError(
                f"{loss.key}.ensemble: {loss.ensemble.target} goes by one label for each sample, and data.views mixes "
                f"samples, which have two; {WAY_OUT}"
            )


def _arguments(loss: LossSpec) -> Sequence[str]:
    try:
        return list(inspect.signature(loss.loss.resolve()).parameters)
    except ValueError:  # a function written in C
        return []
