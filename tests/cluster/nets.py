"""Students and teachers for the cluster tests, built by import path in the workers."""

from torch import nn


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
