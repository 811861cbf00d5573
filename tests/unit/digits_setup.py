"""Digits, small teachers and small students, all real, for the unit tests. Needs no Ray."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from actors.checkpoints import Checkpoints
from actors.data import BatchSampler, slice_ids, training_rows
from actors.datasets import Digits
from actors.knowledge import Batch, Position
from actors.probe import probe_shapes
from actors.sources import LocalTeachers
from actors.specs import DataSpec, ImportSpec, InputSpec, LossSpec, ModelSpec, RecipeSpec, StudentSpec, TeacherSpec
from actors.storage import Folder
from actors.student import StudentTrainer
from actors.weights import weights_as_bytes

torch.set_num_threads(1)

DATA = DataSpec(
    train=ImportSpec("actors.datasets:Digits", {"train": True}),
    test=ImportSpec("actors.datasets:Digits", {"train": False}),
    slices={"teachers": 200, "student": 96, "more": 48, "validation": 40},
    views=ImportSpec("actors.views:crop_and_flip", {"padding": 1}),
    num_views=2,
)
HARD = LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss"), on="labels")
SOFT = LossSpec("soft", ImportSpec("actors.losses:kd_loss"), on="logits", teachers=("wide",))
ADAM = ImportSpec("torch.optim:Adam", {"lr": 3e-3})


class FashionLike:
    """What torchvision's FashionMNIST looks like from outside: two tensors, rows as PIL images."""

    def __init__(self, rows: int = 64) -> None:
        generator = torch.Generator().manual_seed(0)
        self.data = torch.randint(0, 256, (rows, 28, 28), dtype=torch.uint8, generator=generator)
        self.targets = torch.arange(rows) % 10
        self.classes = ["boot", "bag"]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        return Image.fromarray(self.data[index].numpy()), int(self.targets[index])


def dropout_mlp(*, width: int = 16) -> nn.Module:
    """Draws from torch's generator in every training step."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 10)
    )


@cache
def digits() -> Digits:
    return Digits()


def model(target: str = "actors.models:mlp", *, taps=None, input=None, **kwargs) -> ModelSpec:
    return ModelSpec(ImportSpec(target, kwargs), input or InputSpec(), taps or {})


NETS = {
    "mlp": model(width=48, depth=2, taps={"tap": "pool"}),
    "tiny_cnn": model("actors.models:tiny_cnn", width=8, taps={"tap": "stage2"}),
    "small_resnet": model("actors.models:small_resnet", width=8, taps={"tap": "stage2"}),
    "mobile_cnn": model("actors.models:mobile_cnn", width=8, taps={"tap": "pool"}),
    "small_vit": model("actors.models:small_vit", size=8, width=32, depth=1, taps={"tap": "blocks"}),
    "grey to colour, resized": model(
        "actors.models:plain_cnn",
        channels=3,
        width=8,
        taps={"tap": "stage3"},
        input=InputSpec(size=12, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5,)),
    ),
}
"""A teacher of each family, with a tap."""


def save_teacher(folder: Path, name: str = "wide", spec: ModelSpec | None = None, *, seed: int = 0, **more):
    """An untrained teacher with its weights in a file; `more` are fields of TeacherSpec."""
    spec = spec or model(width=24, depth=1)
    torch.manual_seed(seed)
    built = spec.model.build()
    file = folder / f"{name}.safetensors"
    file.write_bytes(weights_as_bytes(built))
    size, channels = spec.input.size or 8, spec.input.channels or 1
    input_shape = (channels, size, size)
    shapes = probe_shapes(built, spec.taps, torch.zeros(1, *input_shape), name)
    return TeacherSpec(name, spec, str(file), shapes, input_shape=input_shape, **more)


def student(teachers=(), losses=(HARD,), *, spec: ModelSpec | None = None, window: int = 2, **recipe) -> StudentSpec:
    """Four steps of 24 rows per epoch; `recipe` are fields of RecipeSpec."""
    settings = {"epochs": 2, "batch_size": 24, "seed": 3, "optimizer": ADAM, **recipe}
    return StudentSpec(
        name="student",
        model=spec or model(width=12, depth=1),
        recipe=RecipeSpec(**settings),
        data=DATA,
        labelled="student",
        unlabelled=None,
        validation="validation",
        num_classes=10,
        losses=tuple(losses),
        teachers=tuple(teachers),
        window=window,
    )


def trainer(spec: StudentSpec, folder: Path, source=None, **more) -> StudentTrainer:
    source = source or LocalTeachers.load(spec.teachers)
    return StudentTrainer(spec, digits(), source, Checkpoints(Folder(str(folder))), **more)


def trained(spec: StudentSpec, folder: Path, source=None, **more) -> bytes:
    """The weights after the whole run."""
    training = trainer(spec, folder, source, **more)
    training.run()
    return training.exported()


def sampler(**changes) -> BatchSampler:
    slices = slice_ids(DATA.slices, len(digits()), DATA.seed)
    return replace(BatchSampler(slices["student"], slices["more"][:0], 24, 3, DATA.num_views), **changes)


def batches(count: int) -> list[Batch]:
    rows = training_rows(digits(), DATA)
    return [sampler().batch(rows, Position(0, step)) for step in range(count)]


def images(count: int, seed: int = 0) -> torch.Tensor:
    """uint8 (count, 1, 8, 8)."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8))
