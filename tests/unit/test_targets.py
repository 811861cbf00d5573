"""Targets are found and bound before anything starts; what does not fit is said at its key path."""

import json

import pytest

from actors.specs import ImportSpec
from orchestrator.targets import NotHere, bind, find_target

LAB = """
from functools import wraps

def kd_loss(student_logits, teacher_logits, *, temperature, reduction="mean", labels=None): ...
def anything(*args, **kwargs): ...
def by_place(a, b, /, c): ...
class Optimizer:
    def __init__(self, params, lr=0.1): ...
    @classmethod
    def small(cls, params, *, width): ...
@wraps(kd_loss)
def wrapped(*args, **kwargs): ...
number = 3
"""


@pytest.fixture(autouse=True)
def lab(tmp_path, monkeypatch):
    """A package `a_lab` with a module of targets, one that fails and one that needs what is not installed."""
    package = tmp_path / "a_lab"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text(LAB)
    (package / "broken.py").write_text("raise RuntimeError('no disk')")
    (package / "leaving.py").write_text("raise SystemExit(3)")
    (package / "needy.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(str(tmp_path))


def spec(attribute: str, **kwargs: object) -> ImportSpec:
    return ImportSpec(f"a_lab.losses:{attribute}", kwargs)


def text_of(target: ImportSpec, positional: int = 0, names: tuple[str, ...] = ()) -> str:
    with pytest.raises(ValueError) as caught:
        bind(target, "student.model", positional, names)
    return str(caught.value)


def test_finds_what_is_there():
    assert find_target(ImportSpec("json:dumps"), "x") is json.dumps
    assert find_target(ImportSpec("json:JSONEncoder.encode"), "x") is json.JSONEncoder.encode


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("json:dmups", "x: json has no 'dmups'; did you mean 'dumps'?"),
        ("json:JSONEncoder.encod", "x: JSONEncoder has no 'encod'; did you mean 'encode'?"),
        ("a_lab.lossses:kd_loss", "x: a_lab has no module 'lossses'; did you mean 'losses'?"),
        ("a_lab.no.deeper:kd_loss", "x: a_lab has no module 'no'"),
        ("json.decoder.deeper:a", "x: json.decoder has no module 'deeper'"),
        ("a_lab.broken:a", "x: a_lab.broken cannot be imported: RuntimeError: no disk"),
        ("a_lab.leaving:a", "x: a_lab.leaving cannot be imported: SystemExit: 3"),
        (
            "a_lab.needy:a",
            "x: a_lab.needy cannot be imported: ModuleNotFoundError: No module named 'a_package_that_nobody_has'",
        ),
    ],
)
def test_says_what_is_not_there(target, expected):
    with pytest.raises(ValueError) as caught:
        find_target(ImportSpec(target), "x")
    assert str(caught.value) == expected


def test_a_package_that_is_not_installed_is_left_to_the_cluster():
    with pytest.raises(NotHere) as caught:
        find_target(ImportSpec("a_package_that_nobody_has.models:net"), "x")
    assert str(caught.value) == "x: the package 'a_package_that_nobody_has' is not installed here"
    assert not issubclass(NotHere, ValueError), "no mistake, so not caught as one"


@pytest.mark.parametrize(
    ("attribute", "kwargs", "positional", "names"),
    [
        ("kd_loss", {"temperature": 4.0}, 2, ("labels", "ids")),
        ("kd_loss", {"temperature": 4.0, "reduction": "none"}, 2, ()),
        ("kd_loss", {}, 2, ("temperature",)),
        ("anything", {"whatever": 1}, 5, ("labels",)),
        ("by_place", {"c": 1}, 2, ()),
        ("Optimizer", {"lr": 0.1}, 1, ()),
        ("Optimizer.small", {"width": 3}, 1, ()),
        ("wrapped", {"temperature": 1}, 2, ()),
    ],
)
def test_binds_what_fits(attribute, kwargs, positional, names):
    assert callable(bind(spec(attribute, **kwargs), "x", positional, names))


@pytest.mark.parametrize(
    ("attribute", "kwargs", "positional", "names", "expected"),
    [
        (
            "kd_loss",
            {"temprature": 4},
            2,
            (),
            "kd_loss() has no argument 'temprature'; did you mean 'temperature'?",
        ),
        (
            "kd_loss",
            {"temprature": 4, "xyz": 1},
            2,
            ("labels",),
            "kd_loss() has no argument 'temprature'; did you mean 'temperature'?; "
            "has no argument 'xyz'; it has temperature, reduction",
        ),
        ("kd_loss", {}, 2, (), "kd_loss() needs 'temperature'"),
        ("kd_loss", {"temperature": 1}, 0, (), "kd_loss() needs 'student_logits', 'teacher_logits'"),
        (
            "kd_loss",
            {"temperature": 1},
            3,
            (),
            "kd_loss() takes 2 positional arguments, Collegium gives it 3",
        ),
        (
            "kd_loss",
            {"temperature": 1, "labels": 2},
            2,
            ("labels",),
            "kd_loss() is given 'labels' by Collegium; leave it out",
        ),
        ("Optimizer", {"params": 1}, 1, (), "Optimizer() is given 'params' by Collegium; leave it out"),
        ("Optimizer", {"l": 1}, 1, (), "Optimizer() has no argument 'l'; did you mean 'lr'?"),
        ("Optimizer.small", {}, 1, (), "Optimizer.small() needs 'width'"),
        ("by_place", {"a": 1}, 2, (), "by_place() is given 'a' by Collegium; leave it out"),
        ("wrapped", {"t": 1}, 2, (), "wrapped() has no argument 't'; it has temperature, reduction, labels"),
    ],
)
def test_says_what_does_not_fit(attribute, kwargs, positional, names, expected):
    assert text_of(spec(attribute, **kwargs), positional, names) == f"student.model.kwargs: {expected}"


def test_what_cannot_be_called_is_refused():
    assert text_of(spec("number")) == "student.model.target: a_lab.losses:number cannot be called: it is a int"


def test_what_has_no_signature_is_let_pass():
    assert bind(ImportSpec("builtins:dict", {"a": 1}), "x") is dict
