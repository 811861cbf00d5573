"""Where the randomness of training comes from: the place of a step alone."""

from __future__ import annotations

import random

import numpy as np
import torch

from actors.knowledge import Position


def step_seed(seed: int, position: Position, rank: int) -> int:
    """All randomness of a step (dropout) comes from its place, never from what else ran in the process."""
    sequence = np.random.SeedSequence([seed, position.epoch, position.step, rank])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def step_dice(seed: int, position: Position) -> np.random.Generator:
    """What an ensemble rule draws in a step: the same on all workers."""
    return np.random.Generator(np.random.Philox(key=[seed, 3], counter=[0, 0, position.epoch, position.step]))


def seed_everything(seed: int) -> None:
    """Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed also takes a stack trace for each kind of device that is not there, at a small step's cost.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
