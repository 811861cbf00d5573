"""Learning-rate schedulers by import path; those that must know the length of the run are told."""

from __future__ import annotations

import inspect
from typing import Any

from torch.optim import Optimizer

from actors.specs import SCHEDULE_LENGTHS, RecipeSpec

OTHER_LENGTH = "steps_per_epoch"


def build_scheduler(recipe: RecipeSpec, optimizer: Optimizer, steps_per_epoch: int) -> Any | None:
    """The recipe's scheduler. `total_steps` and `T_max` default to the number of times it will be stepped,
    unless `steps_per_epoch` and `epochs` say it."""
    if recipe.scheduler is None:
        return None
    steps = recipe.epochs * (steps_per_epoch if recipe.scheduler_every == "step" else 1)
    accepted = inspect.signature(recipe.scheduler.resolve()).parameters
    if OTHER_LENGTH in recipe.scheduler.kwargs:
        return recipe.scheduler.build(optimizer)
    missing = [name for name in SCHEDULE_LENGTHS if name in accepted and name not in recipe.scheduler.kwargs]
    return recipe.scheduler.build(optimizer, **dict.fromkeys(missing, steps))
