"""A loss's ensemble rule, bound to the teachers that the loss listens to. Imports no Ray."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from actors.ensemble import LearnedWeights, RuleMetadata, rule_metadata, shares_of
from actors.knowledge import Position, RowNumbers
from actors.policies.dropping import left
from actors.randomness import step_dice
from actors.specs import FIXED_WEIGHTS, ImportSpec, TeacherSpec
from actors.teacher import known_classes


def metadata_of_rule(spec: ImportSpec, where: str) -> RuleMetadata:
    """Raises ValueError where the target is no rule."""
    metadata = rule_metadata(spec.resolve())
    if metadata is None:
        raise ValueError(f"{where}: {spec.target} is no ensemble rule; mark it by actors.ensemble:combines")
    return metadata


class Combination(nn.Module):
    """Says what becomes of several teachers' answers: one target, or weights of the losses against each.

    The rule is told of those alone who are `heard`, all but the `dropped`; what it has to learn has room for all, so
    that checkpoints fit. `shares`: of all, 0 of the dropped.
    """

    def __init__(
        self,
        spec: ImportSpec,
        teachers: Sequence[TeacherSpec],
        num_classes: int,
        temperature: float,
        where: str,
        dropped: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.metadata = metadata_of_rule(spec, where)
        kwargs = dict(spec.kwargs)
        names = [teacher.name for teacher in teachers]
        heard = left(names, dropped)
        self.heard = tuple(names.index(name) for name in heard)
        self._count = len(names)
        fixed, key = kwargs.pop(FIXED_WEIGHTS, None), f"{where}.kwargs.{FIXED_WEIGHTS}"
        self._heard_shares = shares_of(heard, fixed, key)
        self.shares = self._of_all(self._heard_shares)
        rule = spec.resolve()
        is_module = isinstance(rule, type)
        if FIXED_WEIGHTS in spec.kwargs and not is_module and "shares" not in self.metadata.arguments:
            raise ValueError(f"{where}.kwargs.{FIXED_WEIGHTS}: {spec.target} has weights of its own; leave them out")
        self._rule: Callable[..., Any] = (
            rule(shares=shares_of(names, fixed, key), **kwargs) if is_module else partial(rule, **kwargs)
        )
        classes = {one.name: known_classes(one.class_map) or list(range(num_classes)) for one in teachers}
        self._fixed = {
            "teachers": list(heard),
            "classes": [classes[name] for name in heard],
            "everyone": classes,
            "temperature": temperature,
        }

    @property
    def gives_target(self) -> bool:
        return self.metadata.gives == "target"

    def target(self, sent: Sequence[Tensor]) -> Tensor:
        """One target of what all who are heard sent."""
        return self._call(targets=sent, shares=self._heard_shares.to(sent[0].device))

    def weights(
        self, labels: Tensor, position: Position, seed: int, logits: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """(teachers,) or (teachers, rows) of all, and what a rule that learns adds to the training: a value per row.
        `logits`: of those who are heard."""
        given = {"labels": labels, "logits": logits, "shares": self._heard_shares.to(labels.device)}
        if "dice" in self.metadata.arguments:
            given["dice"] = step_dice(seed, position)
        found = self._call(**given)
        weights, objective = (found.weights, found.objective) if isinstance(found, LearnedWeights) else (found, None)
        return self._of_all(weights), objective

    def _of_all(self, weights: Tensor) -> Tensor:
        """Weights of those who are heard, with 0 for the others."""
        if len(self.heard) == self._count:
            return weights
        places = torch.tensor(self.heard, device=weights.device)
        return weights.new_zeros(self._count, *weights.shape[1:]).index_copy(0, places, weights)

    def _call(self, **given: Any) -> Any:
        named = {**self._fixed, **given}
        return self._rule(**{name: named[name] for name in self.metadata.arguments if name in named})


def asked_rows(weights: Tensor) -> list[RowNumbers]:
    """Per teacher the rows that it has a weight in: None for all of them, an empty tuple for none."""
    if weights.ndim == 1:
        return [None if weight else () for weight in weights.tolist()]
    heard = weights != 0
    return [None if bool(one.all()) else tuple(torch.nonzero(one)[:, 0].tolist()) for one in heard]
