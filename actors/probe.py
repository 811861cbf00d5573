"""Shapes that a model puts out, found by one fake forward, and the parameters that a loss reaches.

A model that cannot be faked (its control flow reads values, it is TorchScript) runs two real rows instead.
Imports no Ray.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from actors.features import TapError, TappedModel
from actors.knowledge import LOGITS
from actors.specs import Shape

logger = logging.getLogger(__name__)

ROWS = 2


def probe_shapes(model: nn.Module, taps: Mapping[str, str], inputs: Tensor, where: str) -> dict[str, Shape]:
    """Shapes, without the batch dimension, of `logits` and of each tap. Leaves the model as it was.

    Of `inputs` (prepared for the model, rows first; a meta tensor will do) only shape and dtype matter.
    `where` is the config key of the model (`student`, `teachers.NAME`). Raises ValueError where the model
    refuses the input.
    """
    row = tuple(inputs.shape[1:])
    try:
        outputs = probe(model, taps, row, inputs.dtype, where)
    except TapError:
        raise
    except Exception as error:
        raise ValueError(
            f"{where}.model: its forward failed on input {row} of {inputs.dtype}: {type(error).__name__}: {error}; "
            f"if it wants images of another size, set {where}.input.size or {where}.input.channels"
        ) from error
    return {name: row_shape(name, output, where) for name, output in outputs.items()}


def probe(model: nn.Module, taps: Mapping[str, str], row: Shape, dtype: torch.dtype, where: str) -> dict[str, Tensor]:
    """The outputs, fake or real, for two rows of zeros; lets through what the model raises."""
    try:
        return fake_outputs(model, taps, row, dtype, where)
    except TapError:
        raise
    except Exception as error:
        with untouched(model):
            outputs = tapped_outputs(model, taps, row, dtype, where)
        logger.info("%s: cannot be faked (%s); ran %d real rows", where, type(error).__name__, ROWS)
        return outputs


def fake_outputs(
    model: nn.Module, taps: Mapping[str, str], row: Shape, dtype: torch.dtype, where: str
) -> dict[str, Tensor]:
    # On a copy: a forward may cache a tensor as an attribute, and would leave a fake one in the model.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(mode):
        double = copy.deepcopy(model)
    double.eval()
    with mode:
        return tapped_outputs(double, taps, row, dtype, where)


def tapped_outputs(
    model: nn.Module, taps: Mapping[str, str], row: Shape, dtype: torch.dtype, where: str
) -> dict[str, Tensor]:
    tensors = chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    with closing(TappedModel(model, taps, f"{where}.taps")) as tapped, torch.no_grad():
        logits, features = tapped(torch.zeros((ROWS, *row), dtype=dtype, device=device))
    return {LOGITS: logits, **features}


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within; on leaving, the modes, buffers and the CPU's random state are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(m, name, b, b.clone()) for m in model.modules() for name, b in m.named_buffers(recurse=False)]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name, buffer, values in buffers:
            buffer.copy_(values)
            setattr(module, name, buffer)


def row_shape(name: str, output: Tensor, where: str) -> Shape:
    if output.dim() == 0 or output.shape[0] != ROWS:
        what = f"{where}: the model's output" if name == LOGITS else f"{where}.taps.{name}: the feature"
        raise TapError(
            f"{what} must have the rows as its first dimension, got {tuple(output.shape)} for {ROWS} rows; "
            "tap another module, or wrap this one"
        )
    return tuple(output.shape[1:])


def reaches(loss: Tensor, parameters: Iterable[Tensor]) -> bool:
    """Whether the graph of `loss` (fake or real) leads to any of `parameters`; no backward is run."""
    wanted = {id(parameter) for parameter in parameters}
    if loss.grad_fn is None:
        return loss.requires_grad and id(loss) in wanted
    queue, visited = [loss.grad_fn], {loss.grad_fn}
    while queue:
        node = queue.pop()
        if id(getattr(node, "variable", None)) in wanted:
            return True
        fresh = {parent for parent, _ in node.next_functions if parent is not None} - visited
        visited |= fresh
        queue.extend(fresh)
    return False
