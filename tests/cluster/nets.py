"""Students, views and optimisers for the cluster tests, built by import path in the workers."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import ray
import torch
from torch import nn

from actors.datasets import Digits
from tests.cluster.runs import wait_for


def restless(*, num_classes: int = 10, width: int = 8) -> nn.Module:
    """A student with what makes runs differ where randomness or state is lost: dropout and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(width * 64, num_classes),
    )


def impure_view(dataset, sample_id, generator):
    """A view that depends on the process it runs in: what a digest is there to catch."""
    image, label = dataset[sample_id]
    return np.full_like(image[None], os.getpid() % 251), label


def sgd_after_meeting(parameters, *, folder: str, parties: int):
    """An optimiser for which a rung waits until as many rungs are under way; the driver's check does not wait."""
    if ray.get_runtime_context().get_task_id() is not None:
        Path(folder, str(os.getpid())).touch()
        wait_for(lambda: len(os.listdir(folder)) >= parties)
    return torch.optim.SGD(parameters, lr=0.01)


class Stateful(nn.Module):
    """A teacher whose forward keeps its state on itself: two calls at once would mix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, inputs):
        self.hidden = self.first(inputs.flatten(1))
        time.sleep(0.02)
        return self.second(self.hidden)


class Slow(nn.Module):
    """A teacher that keeps students waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, inputs):
        time.sleep(0.05)
        return self.head(inputs.flatten(1))


class Fatal(Slow):
    """A teacher whose process dies of every request."""

    def forward(self, inputs):
        os.kill(os.getpid(), signal.SIGKILL)


class SeekingDigits(Digits):
    """Reads by a place that it remembers, like a file that is sought and then read."""

    def __getitem__(self, index: int):
        self.place = index
        time.sleep(0.0001)
        return super().__getitem__(self.place)


class PausedSGD(torch.optim.SGD):
    """Says in `folder` that it is at one of these steps, and goes on once it is told to there."""

    def __init__(self, parameters, *, folder: str, pauses: list[int], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self._folder, self._pauses, self._steps = Path(folder), pauses, 0

    def step(self, closure=None):
        self._steps += 1
        if self._steps in self._pauses:
            (self._folder / f"at-{self._steps}").touch()
            wait_for((self._folder / f"go-{self._steps}").exists)
        return super().step(closure)
