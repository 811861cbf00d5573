"""Where randomness comes from: the generators of a process."""

import random

import numpy as np
import torch

from actors.randomness import seed_everything


def draws():
    return random.random(), np.random.rand(), torch.rand(3).tolist(), torch.randperm(5).tolist()


def test_every_generator_of_the_process_begins_again_at_the_seed():
    seed_everything(2**62 + 5)
    first = draws()
    assert draws() != first
    seed_everything(2**62 + 5)
    assert draws() == first
    seed_everything(2**62 + 6)
    assert all(one != other for one, other in zip(draws(), first, strict=True))


def test_torch_draws_what_it_draws_after_its_own_seeding():
    seed_everything(7)
    ours = torch.rand(5)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(5), ours)
