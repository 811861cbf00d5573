"""YAML in and out: what is read as what, what is no config at all, and overrides."""

import pytest

from orchestrator import document
from orchestrator.problems import ConfigError


def problem(path) -> str:
    with pytest.raises(ConfigError) as caught:
        document.read(path)
    (line,) = caught.value.problems
    return line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E3", 5000.0),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("20_000", 20000),
        ("0x1F", 31),
        ("0o17", 15),
        ("010", "010"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("1e-3 x", "1e-3 x"),
    ],
)
def test_plain_words_are_read_as_people_mean_them(text, value):
    assert document.load(f"{{on: {text}}}", "text") == {"on": value}
    assert document.load(document.dump({"on": value, "as text": text}), "dumped") == {
        "on": value,
        "as text": text,
    }


def test_what_is_shared_is_written_out_at_each_place():
    shared = [1]
    assert document.dump({"a": shared, "b": shared}) == "a: [1]\nb: [1]\n"


def test_merged_mappings():
    text = "base: &b {x: 1, y: 2}\nmore: {<<: *b, x: 3}\nthird: {<<: *b}"
    assert document.load(text, "text")["more"] == {"x": 3, "y": 2}
    assert document.load(text, "text")["third"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "line 5: the key 'c' is given twice (first on line 3)"),
        ("a: {b: 1, b: 2}", "line 1: the key 'b' is given twice (first on line 1)"),
        ("a: 1\nb: c: d\n", "line 2: mapping values are not allowed here"),
        ("a: [1\n", "line 2: expected ',' or ']', but got '<stream end>'"),
        ("- a\n- b\n", "line 1: expected a mapping of keys to values, got ['a', 'b']"),
        ("", "line 1: expected a mapping of keys to values, got null"),
        (
            "a: 1\nb: !!python/name:os.system\n",
            "line 2: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'",
        ),
    ],
)
def test_files_that_are_no_config(tmp_path, text, expected):
    path = tmp_path / "exp.yaml"
    path.write_text(text)
    assert problem(path) == f"{path}, {expected}"


def test_files_that_cannot_be_read(tmp_path):
    assert problem(tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: there is no such file"
    assert problem(tmp_path).startswith(f"{tmp_path}: cannot be read: ")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    assert "latin.yaml: cannot be read: " in problem(tmp_path / "latin.yaml")
    (tmp_path / "bell.yaml").write_bytes(b"name: \x07\n")
    assert "bell.yaml: not readable as YAML: " in problem(tmp_path / "bell.yaml")


def test_overrides_set_values_in_order_and_make_mappings_on_the_way():
    before = {"a": {"b": 1}, "list": [1, 2], "none": None}
    overrides = ["a.b=2", "a.b=3", "a.c.d=x=y", "list.1=[3]", "none.e=1e-3"]
    assert document.override(before, overrides) == {
        "a": {"b": 3, "c": {"d": "x=y"}},
        "list": [1, [3]],
        "none": {"e": 0.001},
    }
    assert before == {"a": {"b": 1}, "list": [1, 2], "none": None}


def test_an_override_leaves_the_other_users_of_an_anchor_alone():
    shared = document.load("a: &x {k: 1}\nb: *x\n", "text")
    assert document.override(shared, ["a.k=2"]) == {"a": {"k": 2}, "b": {"k": 1}}
