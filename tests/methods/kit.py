"""One kit for every loss: a `LossCase` says how to call a loss, each `check_*` holds it to one promise.

`GoldenRow` is one published value of a loss, `LossCase` one loss with all that its checks need. The checks
are plain functions that fail an assertion, so that test_kit.py may see them fail. It must not import a
single loss: cases/ names them.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from actors.losses import LossMetadata, metadata_of
from actors.losses.metadata import phi_kwargs
from tests.methods.golden import golden_input, golden_value

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class GoldenRow:
    """A value in golden_losses.json, found by three fields, and the kwargs that ask the loss for it."""

    loss: str
    hyperparameters: str
    inputs: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LossCase:
    """A loss and how to call it.

    golden          its published values; the first also gives inputs and kwargs to the other checks
    arguments       names of the tensors, in the order of a golden row's inputs; `student_*` take the
                    gradient, `teacher_*` are their counterparts, others (labels) are passed as they are
    wrong_shapes    by argument, a shape that must be refused
    shape_error     the whole text of that refusal
    zero_tolerance  how far from 0 the value may lie at equality, where the paper has an epsilon
    other_phi       other values of all that its phi takes beside tensors
    steep_at        extremes at which the gradient outgrows float16; the docstring says so
    """

    loss: Callable[..., Tensor]
    golden: tuple[GoldenRow, ...]
    arguments: tuple[str, ...]
    wrong_shapes: Mapping[str, tuple[int, ...]]
    shape_error: str
    zero_tolerance: float = 1e-9
    other_phi: Mapping[str, Any] = field(default_factory=dict)
    steep_at: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return getattr(self.loss, "__name__", repr(self.loss))

    @property
    def metadata(self) -> LossMetadata | None:
        return metadata_of(self.loss)

    def has_option(self, name: str) -> bool:
        return name in inspect.signature(self.loss).parameters

    @property
    def on_logits(self) -> bool:
        return "student_logits" in self.arguments

    def inputs(self, row: GoldenRow | None = None) -> Inputs:
        names = (row or self.golden[0]).inputs.split(",")
        return {argument: golden_input(name) for argument, name in zip(self.arguments, names, strict=True)}

    def __call__(self, inputs: Inputs, **kwargs: Any) -> Tensor:
        return self.loss(**inputs, **{**self.golden[0].kwargs, **kwargs})


# --- the promises ---


def check_golden(case: LossCase, row: GoldenRow) -> None:
    """The published value to 1e-6 in float64."""
    value = case.loss(**case.inputs(row), **row.kwargs)
    assert value.dtype == torch.float64 and value.dim() == 0
    expected = golden_value(row.loss, row.hyperparameters, row.inputs)
    assert value.item() == pytest.approx(expected, rel=1e-6, abs=0)


def check_zero_at_equality(case: LossCase) -> None:
    """Neither value nor gradient where the student equals the teacher."""
    inputs = _at_equality(case.inputs())
    value, gradients = _value_and_gradients(case, inputs)
    assert abs(value.item()) <= case.zero_tolerance
    assert max(gradient.abs().max().item() for gradient in gradients) <= case.zero_tolerance


def check_gradient(case: LossCase) -> None:
    """With a detached teacher the gradient is not zero, and is the derivative (finite differences)."""
    inputs = case.inputs()
    _, gradients = _value_and_gradients(case, inputs)
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients), "no gradient reaches the student"
    names = _students(inputs)

    def of_student(*students: Tensor) -> Tensor:
        return case(inputs | dict(zip(names, students, strict=True)))

    leaves = [inputs[name].requires_grad_() for name in names]
    assert torch.autograd.gradcheck(of_student, leaves, raise_exception=False), "gradcheck failed"


def check_shape_error(case: LossCase) -> None:
    """A wrong shape raises a ValueError that says what was expected, what came, and what to do."""
    inputs = case.inputs()
    wrong = {name: torch.zeros(shape).to(inputs[name].dtype) for name, shape in case.wrong_shapes.items()}
    text = _refusal(case, inputs | wrong)
    assert text is not None, "a wrong shape was taken"
    assert text == case.shape_error


def check_half_precision(case: LossCase, dtype: torch.dtype) -> None:
    """Half precision in, float32 within: finite, and the value of float64 on the same rounded numbers."""
    for name, inputs in {"as is": case.inputs(), **_extremes(case.inputs())}.items():
        if not (name in case.steep_at and dtype == torch.float16):
            _check_close_to_float64(case, _to(inputs, dtype))


def check_extremes(case: LossCase) -> None:
    """Finite and right in float32 at +-1e4, in agreement and in dispute, and at all zeros."""
    for inputs in _extremes(case.inputs()).values():
        _check_close_to_float64(case, _to(inputs, torch.float32))


def check_autocast(case: LossCase) -> None:
    """Autocast changes nothing."""
    inputs = _to(case.inputs(), torch.float32)
    plain = case(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(case(inputs), plain)


def check_reduction(case: LossCase) -> None:
    """`none` gives a value per sample that depends on that sample alone, and averages to `mean`."""
    inputs = case.inputs()
    size = len(inputs[case.arguments[0]])
    per_sample = case(inputs, reduction="none")
    assert per_sample.shape == (size,)
    torch.testing.assert_close(per_sample.mean(), case(inputs, reduction="mean"), rtol=1e-12, atol=0)
    alone = [case({k: v[i : i + 1] for k, v in inputs.items()}, reduction="none") for i in range(size)]
    torch.testing.assert_close(torch.cat(alone), per_sample, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"reduction: expected mean or none, got 'sum'"):
        case(inputs, reduction="sum")


def check_permutation(case: LossCase) -> None:
    """The order of the batch changes nothing; with `none`, it orders the values."""
    inputs = case.inputs()
    order = torch.tensor([2, 0, 3, 1])
    permuted = {name: tensor[order] for name, tensor in inputs.items()}
    torch.testing.assert_close(case(permuted), case(inputs), rtol=1e-10, atol=0)
    if case.has_option("reduction"):
        expected = case(inputs, reduction="none")[order]
        torch.testing.assert_close(case(permuted, reduction="none"), expected, rtol=1e-10, atol=0)


def check_purity(case: LossCase) -> None:
    """The same again, and no argument was written to."""
    inputs = case.inputs()
    before = {name: tensor.clone() for name, tensor in inputs.items()}
    assert torch.equal(case(inputs), case(inputs))
    assert all(torch.equal(inputs[name], before[name]) for name in inputs)


def check_alignment(case: LossCase) -> None:
    """`aligns` is honest: what it names must agree with the teacher's, what it leaves out need not."""
    inputs = case.inputs()
    metadata = case.metadata
    assert metadata is not None
    assert (_refusal(case, _widened(inputs, dim=1)) is None) == (metadata.aligns in ("space", "nothing"))
    if not case.on_logits:
        assert (_refusal(case, _widened(_with_places(inputs), dim=2)) is None) == (
            metadata.aligns in ("channels", "nothing")
        )


def check_phi(case: LossCase, dtype: torch.dtype) -> None:
    """The loss is what closes phi of both sides, bit for bit, at the golden kwargs and at others."""
    metadata = case.metadata
    assert metadata is not None and metadata.phi is not None and metadata.closing is not None
    inputs = _to(case.inputs(), dtype)
    students = [inputs[name] for name in _students(inputs)]
    teachers = [tensor for name, tensor in inputs.items() if name.startswith("teacher_")]
    given = {**case.golden[0].kwargs, "reduction": "none"}
    own = phi_kwargs(case.loss, metadata.phi, given)
    for kwargs in (given, {**given, "reduction": "mean"}, {**given, **case.other_phi}):
        assert kwargs != {**given, **case.other_phi} or phi_kwargs(case.loss, metadata.phi, kwargs) != own
        of_phi = phi_kwargs(case.loss, metadata.phi, kwargs)
        reduced = [metadata.phi(*tensors, **of_phi) for tensors in (students, teachers)]
        closing_kwargs = {name: value for name, value in kwargs.items() if name not in of_phi}
        assert torch.equal(metadata.closing(*reduced, **closing_kwargs), case.loss(**inputs, **kwargs))
    alone = [metadata.phi(*(tensor[i : i + 1] for tensor in teachers), **own) for i in range(len(teachers[0]))]
    assert torch.equal(torch.cat(alone), metadata.phi(*teachers, **own)), "phi is not row-wise"


def check_signature(case: LossCase) -> None:
    """Tensors by position, options by keyword with a default; paper, `needs` and refusals documented."""
    parameters = inspect.signature(case.loss).parameters.values()
    assert tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD) == case.arguments
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters if _is_option(p))
    first, *rest = (inspect.getdoc(case.loss) or "").split("\n")
    identifier = re.search(r"\d{4}, arXiv \d{4}\.\d{5}|\d{4}, arXiv 1[0-4]\d{2}\.\d{4}|\d{4}, CVPR", first)
    assert identifier, "the docstring's first line gives no year and arXiv id (or conference)"
    assert "Raises ValueError" in "\n".join(rest)
    if case.metadata is not None:
        assert case.metadata.paper.endswith(identifier.group())
        assert set(case.metadata.needs) == {a for a in case.arguments if not a.startswith(("student", "teacher"))}


# --- what they are made of ---


def _is_option(parameter: inspect.Parameter) -> bool:
    return parameter.kind is not parameter.POSITIONAL_OR_KEYWORD


def _students(inputs: Inputs) -> list[str]:
    return [name for name in inputs if name.startswith("student_")]


def _at_equality(inputs: Inputs) -> Inputs:
    return {name: inputs[re.sub("^teacher_", "student_", name)].clone() for name in inputs}


def _value_and_gradients(case: LossCase, inputs: Inputs) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The loss, and its gradients by the student's tensors; the teacher's are detached."""
    leaves = {name: inputs[name].detach().clone().requires_grad_() for name in _students(inputs)}
    value = case(inputs | leaves)
    assert value.requires_grad, "no gradient reaches the student"
    return value, torch.autograd.grad(value, list(leaves.values()))


def _refusal(case: LossCase, inputs: Inputs) -> str | None:
    try:
        case(inputs)
    except ValueError as error:
        return str(error)
    return None


def _to(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}


def _widened(inputs: Inputs, dim: int) -> Inputs:
    """The teacher's tensors twice as large in one dimension."""
    return {k: torch.cat([v, v], dim) if k.startswith("teacher_") else v for k, v in inputs.items()}


def _with_places(inputs: Inputs) -> Inputs:
    """Embeddings (N, D) as (N, D, 1); feature maps as they are."""
    return {name: tensor.unsqueeze(2) if tensor.dim() == 2 else tensor for name, tensor in inputs.items()}


def _extremes(inputs: Inputs) -> dict[str, Inputs]:
    students, teachers = _students(inputs), [name for name in inputs if name.startswith("teacher_")]
    huge = inputs | {name: 1e4 * inputs[name] / inputs[name].abs().max() for name in students + teachers}
    agreeing = _at_equality(huge)
    return {
        "huge": huge,
        "huge and agreeing": agreeing,
        "huge and opposed": agreeing | {name: -agreeing[name] for name in teachers},
        "huge student": inputs | {name: huge[name] for name in students},
        "huge teacher": inputs | {name: huge[name] for name in teachers},
        "zero student": inputs | {name: torch.zeros_like(inputs[name]) for name in students},
        "zero teacher": inputs | {name: torch.zeros_like(inputs[name]) for name in teachers},
    }


def _check_close_to_float64(case: LossCase, inputs: Inputs) -> None:
    value, gradients = _value_and_gradients(case, inputs)
    exact, exact_gradients = _value_and_gradients(case, _to(inputs, torch.float64))
    assert value.dtype == torch.float32
    assert torch.isfinite(exact) and all(torch.isfinite(gradient).all() for gradient in exact_gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients), "the gradient is not finite"
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=max(1e-6, case.zero_tolerance))
