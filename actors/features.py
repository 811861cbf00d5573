"""Features of a model: `TappedModel` runs it and hands out, beside its logits, what named modules computed.

`Tap` is the forward hook of one tap. Hooks stay on the modules and write into the buffers of the calls under
way in their own thread, never into the model: calls may run at once. Imports no Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from actors.knowledge import LOGITS


class TapError(ValueError):
    """A tap that the model cannot serve."""


class Tap:
    """A forward hook; it is its own key in the buffers, so that the taps of a copied model are other taps."""

    def __init__(self, key: str, path: str) -> None:
        self.key = key
        self.path = path

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        waiting = [buffer for buffer in _BUFFERS.get() if self in buffer]
        if waiting:
            # A later in-place layer (ReLU(inplace=True), `out += x`) would overwrite what the tap has seen.
            # In one memory order, in process as after a journey: sums in another order end in other bits.
            feature = first_tensor(output, f"{self.key}: the output of module {self.path!r}")
            feature = feature.clone(memory_format=torch.contiguous_format)
            for buffer in waiting:
                buffer[self] = feature


Buffer = dict[Tap, Tensor | None]
_BUFFERS: ContextVar[tuple[Buffer, ...]] = ContextVar("buffers", default=())


class TappedModel(nn.Module):
    """A model and its taps, name -> module path; `(inputs, taps)` gives the logits and the features by tap.

    `taps=None` asks for all, `()` for none. A module that runs several times in a forward shows its last
    output. Of a tuple, list or dict the first element counts (attention's output, not its weights). The bare
    model is `.model`; export `.model.state_dict()`, whose keys have no prefix. `where` is the config key of
    `taps`, with which errors begin.
    """

    def __init__(self, model: nn.Module, taps: Mapping[str, str], where: str = "taps") -> None:
        super().__init__()
        self.model = model
        self.where = where
        modules = dict(model.named_modules(remove_duplicate=False))
        self._taps = {name: Tap(f"{where}.{name}", path) for name, path in taps.items()}
        for name, tap in self._taps.items():
            check_tap(name, tap, modules)
        self._handles = [modules[tap.path].register_forward_hook(tap) for tap in self._taps.values()]

    def forward(self, inputs: Tensor, taps: Sequence[str] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        asked = {name: self._tap(name) for name in (self._taps if taps is None else taps)}
        with awaiting(asked.values()) as buffer:
            output = self.model(inputs)
        logits = first_tensor(output, f"{self.where}: the output of the model")
        return logits, {name: seen(tap, buffer) for name, tap in asked.items()}

    def close(self) -> None:
        """Takes the hooks off the model, which remains usable; after it no tap can be asked for."""
        for handle in self._handles:
            handle.remove()
        self._taps = {}

    def _tap(self, name: str) -> Tap:
        if name not in self._taps:
            raise TapError(f"{self.where}: no tap is called {name!r}; there are {quoted(self._taps) or 'none'}")
        return self._taps[name]


@contextmanager
def awaiting(taps: Iterable[Tap]) -> Iterator[Buffer]:
    """A buffer into which, within the block and this thread, the taps write. Blocks nest."""
    buffer: Buffer = dict.fromkeys(taps)
    if not buffer:
        yield buffer
        return
    token = _BUFFERS.set((*_BUFFERS.get(), buffer))
    try:
        yield buffer
    finally:
        _BUFFERS.reset(token)


def seen(tap: Tap, buffer: Buffer) -> Tensor:
    feature = buffer[tap]
    if feature is None:
        raise TapError(f"{tap.key}: module {tap.path!r} did not run in the forward; tap a module that is called")
    return feature


def first_tensor(output: Any, what: str) -> Tensor:
    """The tensor itself, or the first element of a tuple, list or dict."""
    first = output
    if isinstance(output, Mapping):
        first = next(iter(output.values()), None)
    elif isinstance(output, (tuple, list)):
        first = output[0] if output else None
    if not isinstance(first, Tensor):
        raise TapError(f"{what} must be a tensor, or begin with one, got {type(output).__name__}; tap another module")
    return first


def check_tap(name: str, tap: Tap, modules: Mapping[str, nn.Module]) -> None:
    if name == LOGITS:
        raise TapError(f"{tap.key}: {LOGITS!r} is the name of the model's output; give the tap another name")
    if not tap.path:
        raise TapError(f"{tap.key}: '' is the whole model, whose output are the logits; name a module within it")
    if tap.path not in modules:
        raise TapError(f"{tap.key}: the model has no module {tap.path!r}; {way_out(tap.path, list(modules))}")


def way_out(path: str, paths: Sequence[str]) -> str:
    close = get_close_matches(path, paths, n=3)
    if close:
        return f"did you mean {quoted(sorted(close, key=paths.index))}?"
    return f"its parts are {quoted(p for p in paths if p and '.' not in p)}"


def quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
