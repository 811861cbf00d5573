"""Model weights: read without unpickling anything, fitted to a model with clear errors, hashed, exported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from actors.storage import local_file

WRAPPERS = ("state_dict", "model_state_dict", "model")
PARALLEL_PREFIX = "module."
MOST_NAMED = 4


def read_weights(path: str, where: str) -> dict[str, Tensor]:
    """A state dict from a safetensors file or from a torch checkpoint that holds tensors and plain values alone.

    A checkpoint may wrap its state dict under `state_dict`, `model_state_dict` or `model`, and prefix all names by
    `module.`.

    Raises:
        ValueError: no such file, no state dict in it, or a pickle that would run code (nothing of it is run).
    """
    try:
        here = local_file(path)
    except FileNotFoundError:
        here = ""
    if not Path(here).is_file():
        raise ValueError(f"{where}: expected a file of weights, found none at {path!r}; check the path")
    if here.endswith(".safetensors"):
        return _read_safetensors(here, where)
    return _unwrap(_read_torch(here, where), path, where)


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Loads `weights` into `model`.

    Raises:
        ValueError: names are missing or unknown, or shapes differ: names the first few.
    """
    wanted = model.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is not in the model" for name in weights if name not in wanted]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} in the file and {tuple(wanted[name].shape)} in the model"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise ValueError(
            f"{where}: the weights do not fit the model: {'; '.join(problems[:MOST_NAMED])}{more}; "
            "check the model's kwargs"
        )
    model.load_state_dict(dict(weights))


def weight_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def weights_as_bytes(model: nn.Module) -> bytes:
    """The model's state dict as a safetensors file."""
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(tensors)


def _read_safetensors(path: str, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{where}: {path!r} is not a whole safetensors file ({error}); export it again") from error


def _read_torch(path: str, where: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn file or a text raises almost anything
        raise ValueError(
            f"{where}: {path!r} is refused, nothing of it was run: expected tensors and plain values alone "
            f"({_reason(error)}); save model.state_dict() as safetensors instead"
        ) from error


def _reason(error: Exception) -> str:
    """The one sentence of torch's long advice that says what is in the file."""
    code = re.search(r"unsupported global:? (?:GLOBAL )?([\w.]+)", str(error), re.IGNORECASE)
    first = str(error).partition("\n")[0].partition(". ")[0]
    return f"it wants {code.group(1)}" if code else first or type(error).__name__


def _unwrap(loaded: Any, path: str, where: str) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{where}: expected a state dict (name -> tensor) in {path!r}; save model.state_dict()")
    named = {str(name): tensor for name, tensor in loaded.items()}
    if not all(name.startswith(PARALLEL_PREFIX) for name in named):
        return named
    return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in named.items()}
