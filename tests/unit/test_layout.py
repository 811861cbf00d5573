"""The plan of the house, read from the source: who imports whom, how long things are, what `--help` loads."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator.config import ExperimentConfig

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "actors": {"actors"},
    "orchestrator": {"actors", "orchestrator"},
    "search": {"actors", "orchestrator", "search"},
}
OURS = {*MAY_IMPORT, "tests", "benchmarks", "scripts"}
ENTRY = "orchestrator.cli"
CLAIMS = {"ray": r"\b(no|not) Ray\b", "torch": r"\bno torch\b", "mlflow": r"\bno MLflow\b"}


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in files(*MAY_IMPORT)}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(nodes: Iterator[ast.AST], module: str) -> set[str]:
    """Dotted names; `from a import b` gives both a and a.b. Relative ones are resolved."""
    found = set()
    package = module if MODULES.get(module, Path()).name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return found


def every_import(module: str) -> set[str]:
    return imports(ast.walk(tree(MODULES[module])), module)


def at_once(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs when a module is loaded: not what stands in functions or under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from at_once(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from at_once([child for child in getattr(node, part, []) if isinstance(child, ast.stmt)])


@cache
def loaded(module: str) -> frozenset[str]:
    """The root packages that come into memory with one of our modules."""
    found, seen, queue = set(), set(), [module]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            queue += imports(at_once(tree(MODULES[name]).body), name)
            queue += [name.rpartition(".")[0]] if "." in name else []
        else:
            found.add(name.partition(".")[0])
    return frozenset(found - OURS)


def root(name: str) -> str:
    return name.partition(".")[0]


def test_the_walk_of_the_imports_sees_what_is_there():
    assert "ray" in loaded("actors.pool.keeper") and "torch" in loaded("actors.data")
    assert "ray" in loaded("orchestrator.experiment") and "numpy" in loaded("actors.fingerprints")
    assert "orchestrator.config" in every_import("orchestrator.loss_checks"), "TYPE_CHECKING counts"
    assert "ray.train" in every_import("actors.training"), "imports in functions count"
    assert len(MODULES) > 50


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package):
    for module in (name for name in MODULES if root(name) == package):
        allowed = MAY_IMPORT[package] | ({"search"} if module == ENTRY else set())
        strangers = {name for name in every_import(module) if root(name) in OURS - allowed}
        assert not strangers, f"{module} imports {strangers}"


@pytest.mark.parametrize(("package", "above"), [("actors", "orchestrator|search"), ("orchestrator", "search")])
def test_no_import_path_in_a_string_leads_back_up(package, above):
    for module in (name for name in MODULES if root(name) == package and name != ENTRY):
        words = [node.value for node in ast.walk(tree(MODULES[module])) if isinstance(node, ast.Constant)]
        paths = [word for word in words if isinstance(word, str) and re.fullmatch(rf"({above})(\.\w+)+(:\w+)?", word)]
        assert not paths, f"{module} names {paths}"


def test_losses_import_torch_and_the_standard_library_alone():
    for module in (name for name in MODULES if name.startswith("actors.losses")):
        for name in every_import(module):
            known = root(name) in {"torch", *sys.stdlib_module_names} or name.startswith("actors.losses")
            assert known, f"{module} imports {name}"


def test_only_the_tracking_package_imports_mlflow_and_late():
    importing = {module for module in MODULES if any(root(name) == "mlflow" for name in every_import(module))}
    assert importing and all(module.startswith("orchestrator.tracking.") for module in importing), importing
    for module in MODULES:
        assert "mlflow" not in loaded(module), f"{module} loads MLflow at once"


@pytest.mark.parametrize("package", CLAIMS)
def test_a_module_that_says_it_imports_no_such_thing_does_not(package):
    claiming = [m for m, path in MODULES.items() if re.search(CLAIMS[package], ast.get_docstring(tree(path)) or "")]
    assert claiming
    for module in claiming:
        assert package not in loaded(module), f"{module} says it does not import {package}"


def test_help_and_configs_load_neither_torch_nor_ray():
    code = (
        "import sys, orchestrator.config, orchestrator.cli as cli\n"
        "commands = ([], ['run'], ['check'], ['methods'], ['sync'], ['report'], ['pool'], ['pool', 'add'])\n"
        "helps = [[*command, '--help'] for command in commands]\n"
        "for words in (*helps, ['check', '--schema']):\n"
        "    sys.argv = ['collegium', *words]\n"
        "    try: cli.main()\n"
        "    except SystemExit as ended: assert not ended.code, ended.code\n"
        "print(sorted({'torch', 'ray', 'mlflow', 'torchvision', 'matplotlib', 'jinja2', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_command_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "orchestrator", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout and "check" in done.stdout


def test_files_and_functions_stay_small():
    for path in files(*MAY_IMPORT, "benchmarks"):
        assert len(path.read_text().splitlines()) <= 300, path
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_nothing_is_called_utils_helpers_or_manager():
    for path in files(*MAY_IMPORT, "benchmarks", "scripts", "tests"):
        assert not re.search(r"util|helper|misc|common", path.stem), path
    for path in files(*MAY_IMPORT, "benchmarks"):
        classes = [node.name for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
        assert not [name for name in classes if name.endswith("Manager")], path


def test_no_attribute_is_none_first_and_filled_later():
    for path in files(*MAY_IMPORT):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                empty = [
                    ast.unparse(line)
                    for line in ast.walk(node)
                    if isinstance(line, (ast.Assign, ast.AnnAssign))
                    and isinstance(line.value, ast.Constant)
                    and line.value.value is None
                ]
                assert not empty, f"{path}: {empty}"


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "orchestrator" / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_loads(recipe):
    assert ExperimentConfig.from_yaml(recipe).name
