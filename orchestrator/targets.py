"""Import targets before anything starts, and bind their kwargs: a wrong name costs a second, not a GPU hour.

`find_target` imports one `module:attribute`; `bind` also holds its kwargs against its signature. Torch is
imported only if a target does so.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Collection, Mapping
from inspect import Parameter
from typing import Any

from actors.specs import ImportSpec
from orchestrator.problems import did_you_mean

_NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class NotHere(Exception):
    """A target's package is not installed on this machine: no mistake by itself, the cluster can check it."""


def find_target(spec: ImportSpec, key: str) -> Any:
    """What the spec names. Raises ValueError at `key`, or NotHere without its root package."""
    module, _, attribute = spec.target.partition(":")
    found, name = _import(module, key), module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"{key}: {name} has no {part!r}{did_you_mean(part, dir(found))}") from None
        except Exception as error:
            raise ValueError(f"{key}: {part!r} of {name} cannot be had: {_cause(error)}") from error
        name = part
    return found


def bind(spec: ImportSpec, where: str, positional: int = 0, names: Collection[str] = (), *, key: str = "target") -> Any:
    """What the spec names, its kwargs checked. `where` holds it at `key` and its kwargs at `kwargs`.

    Our code calls it with so many positional arguments, and offers those in `names` to one that has them.
    """
    found = find_target(spec, f"{where}.{key}")
    if not callable(found):
        raise ValueError(f"{where}.{key}: {spec.target} cannot be called: it is a {type(found).__name__}")
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):
        return found
    call = f"{spec.target.rpartition(':')[2]}()"
    problem = _misfit(parameters, spec.kwargs, positional, names)
    if problem:
        raise ValueError(f"{where}.kwargs: {call} {problem}")
    return found


def not_here(line: str) -> str:
    """`key: module:attribute`, whose package is not here, as a problem: where it was looked for, what name is close."""
    package = _package(line)
    return f"{line}; no package {package!r} here (looked in {os.getcwd()} and what is installed){_close(package)}"


def is_misspelt(line: str) -> bool:
    """Whether a package here has nearly the name of that of `key: module:attribute`, which is not here."""
    return bool(_close(_package(line)))


def _package(line: str) -> str:
    return line.partition(": ")[2].partition(":")[0].partition(".")[0]


def _close(package: str) -> str:
    return did_you_mean(package, {module.name for module in pkgutil.iter_modules()})


def _import(module: str, key: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == module.partition(".")[0]:
            raise NotHere(f"{key}: the package {missing!r} is not installed here") from error
        if module == missing or module.startswith(f"{missing}."):
            raise ValueError(f"{key}: {_no_module(missing)}") from None
        raise ValueError(f"{key}: {module} cannot be imported: {_cause(error)}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{key}: {module} cannot be imported: {_cause(error)}") from error


def _no_module(name: str) -> str:
    package, _, last = name.rpartition(".")
    siblings = [m.name for m in pkgutil.iter_modules(getattr(sys.modules.get(package), "__path__", []))]
    return f"{package} has no module {last!r}{did_you_mean(last, siblings)}"


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _misfit(
    parameters: Mapping[str, Parameter], kwargs: Mapping[str, Any], positional: int, names: Collection[str]
) -> str:
    """What is wrong with a call, or nothing. In the order of how likely it is the cause of the rest."""
    by_place = [p.name for p in parameters.values() if p.kind in _BY_PLACE]
    ours = {*by_place[:positional], *(name for name in names if name in parameters)}
    named = [p.name for p in parameters.values() if p.kind in _NAMED and p.name not in ours]
    kinds = {p.kind for p in parameters.values()}
    strange = [k for k in kwargs if k not in named and k not in ours]
    if strange and Parameter.VAR_KEYWORD not in kinds:
        return "; ".join(f"has no argument {k!r}{did_you_mean(k, named) or _known(named)}" for k in strange)
    taken = [k for k in kwargs if k in ours or k in names]
    if taken:
        return f"is given {taken[0]!r} by Collegium; leave it out"
    if positional > len(by_place) and Parameter.VAR_POSITIONAL not in kinds:
        return f"takes {len(by_place)} positional arguments, Collegium gives it {positional}"
    missing = [n for n in parameters if _is_required(parameters[n]) and n not in ours and n not in kwargs]
    return f"needs {', '.join(map(repr, missing))}" if missing else ""


def _is_required(parameter: Parameter) -> bool:
    variadic = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.default is Parameter.empty and not variadic


def _known(named: Collection[str]) -> str:
    return f"; it has {', '.join(named) or 'none'}"
