"""Students and teachers for the cluster tests, built by import path in the workers."""

import os

import numpy as np
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


def impure_view(dataset, sample_id, generator):
    """A view that depends on the process it runs in: what a digest is there to catch."""
    image, label = dataset[sample_id]
    return np.full_like(image[None], os.getpid() % 251), label
