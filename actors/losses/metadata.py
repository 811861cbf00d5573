"""What a loss says of itself: `LossMetadata`, which `distils` attaches and `metadata_of` reads; `phi_kwargs`."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from torch import Tensor

Kind = Literal["response", "feature", "relation"]
Aligns = Literal["all", "space", "channels", "nothing"]
LossFunction = TypeVar("LossFunction", bound=Callable[..., Any])

ATTRIBUTE = "distillation"


@dataclass(frozen=True)
class LossMetadata:
    """What the criterion, a request and the list of methods must know of a loss beyond its signature.

    paper             authors, year and arXiv id
    kind              what is compared: outputs, features, or relations between samples or layers
    needs             names of further arguments, bound by name beside student and teacher
    aligns            what of the student's tensor must equal the teacher's: `all` (for logits: the classes),
                      `space` (all but the channels), `channels` (their number) or `nothing` (but the batch)
    phi               of a loss d(phi(student), phi(teacher)): phi, where it is row-wise, so that it may run at the
                      teacher; its keyword arguments are the loss's of the same names
    closing           d: loss(student, teacher, ...) == closing(phi(student), phi(teacher), ...), bit for bit; it has
                      the loss's other keyword arguments
    zero_at_equality  whether value and gradient vanish where the student equals the teacher
    """

    paper: str
    kind: Kind
    needs: tuple[str, ...] = ()
    aligns: Aligns = "all"
    phi: Callable[..., Tensor] | None = None
    closing: Callable[..., Tensor] | None = None
    zero_at_equality: bool = True

    def __post_init__(self) -> None:
        for name, got, known in (
            ("kind", self.kind, get_args(Kind)),
            ("aligns", self.aligns, get_args(Aligns)),
        ):
            if got not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {got!r}")
        if isinstance(self.needs, str):
            raise ValueError(f"needs: expected a tuple of names, got the text {self.needs!r}")
        if (self.phi is None) != (self.closing is None):
            raise ValueError("phi, closing: expected both or neither; closing takes phi's results")
        if self.phi is not None and "<" in getattr(self.phi, "__qualname__", "<"):
            raise ValueError(f"phi: expected a function that a teacher can import, got {self.phi!r}; give it a name")


def distils(
    *,
    paper: str,
    kind: Kind,
    needs: tuple[str, ...] = (),
    aligns: Aligns = "all",
    phi: Callable[..., Tensor] | None = None,
    closing: Callable[..., Tensor] | None = None,
    zero_at_equality: bool = True,
) -> Callable[[LossFunction], LossFunction]:
    """Attach a `LossMetadata` to a loss; the loss itself stays as it is."""
    metadata = LossMetadata(paper, kind, needs, aligns, phi, closing, zero_at_equality)

    def attach(loss: LossFunction) -> LossFunction:
        for name in () if phi is None else _arguments(phi):
            if name not in inspect.signature(loss).parameters:
                raise ValueError(f"phi: it takes {name!r}, which {loss.__qualname__}() lacks; give the loss that too")
        setattr(loss, ATTRIBUTE, metadata)
        return loss

    return attach


def metadata_of(loss: Callable[..., Any]) -> LossMetadata | None:
    """The metadata of a loss, or None for one that was never decorated."""
    metadata = getattr(loss, ATTRIBUTE, None)
    return metadata if isinstance(metadata, LossMetadata) else None


def phi_kwargs(loss: Callable[..., Any], phi: Callable[..., Tensor], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a loss that is called with `kwargs` gives to its phi: the arguments of phi's names, or their defaults."""
    defaults = inspect.signature(loss).parameters
    return {name: kwargs.get(name, defaults[name].default) for name in _keywords(phi)}


def _arguments(phi: Callable[..., Tensor]) -> list[str]:
    """The keyword arguments of a phi. Raises ValueError where it has others that are not tensors."""
    try:
        parameters = inspect.signature(phi).parameters.values()
    except ValueError as error:
        raise ValueError(f"phi: {phi!r} does not say its arguments; wrap it in a function of your own") from error
    if others := [one.name for one in parameters if one.kind is not one.KEYWORD_ONLY and one.default is not one.empty]:
        raise ValueError(f"phi: its argument {others[0]!r} must be keyword-only, after a *, to be found in the loss's")
    return _keywords(phi)


def _keywords(phi: Callable[..., Tensor]) -> list[str]:
    return [one.name for one in inspect.signature(phi).parameters.values() if one.kind is one.KEYWORD_ONLY]
