"""What distillation gains on Fashion-MNIST: alone, from each teacher, from three means of all; mean and spread over
seeds.

Run by `make accuracy`. What is done is kept in benchmarks/out/accuracy.json, so that an interrupted benchmark goes
on; every run trains through `Experiment`, and teachers are trained once.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from orchestrator.cluster import connected
from orchestrator.experiment import Experiment

OUT = Path("benchmarks/out")
MEANS = ("mean_losses", "mean_logits", "mean_probabilities")
NUM_CPUS = {"CPU": 8}


def settings(teachers: tuple[str, ...]) -> dict[str, list[str]]:
    """The overrides of each row; the student alone is trained beside the first."""
    singles = {f"from {name}": [f"losses.soft.teachers=[{name}]"] for name in teachers}
    together = {f"from all, {mean.replace('_', ' of ')}": [f"losses.soft.ensemble={mean}"] for mean in MEANS}
    return {**singles, **together}


def measure(recipe: str, seeds: int, rows: str) -> dict[str, dict[str, float]]:
    """Test accuracy by row and seed, and the teachers' own."""
    file = OUT / f"{Path(recipe).stem}.json"
    found: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.is_file() else {}
    base = Experiment.from_yaml(recipe)
    for seed in map(str, range(seeds)):
        for row, overrides in settings(tuple(base.config.teachers)).items():
            if rows not in row:
                continue
            needs_alone = seed not in found.get("alone", {})
            if seed in found.get(row, {}) and not needs_alone:
                continue
            fixed = [f"seed={seed}", f"storage={OUT / 'runs'}", f"student.alone={str(needs_alone).lower()}"]
            result = Experiment.from_yaml(recipe, [*fixed, *overrides]).run()
            found.setdefault(row, {})[seed] = result.model("student").accuracy
            for model in result.models:
                if model.role in ("teacher", "ensemble", "alone"):
                    key = model.name if model.role == "alone" else f"{model.role} {model.name}"
                    found.setdefault(key, {})[seed] = model.accuracy
            OUT.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found, indent=1))
    return found


def print_table(found: dict[str, dict[str, float]], title: str) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("test accuracy, %", "mean", "deviation", "standard error", "seeds"):
        table.add_column(heading)
    for row, by_seed in sorted(found.items(), key=lambda item: statistics.mean(item[1].values())):
        values = [100 * value for value in by_seed.values()]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        error = deviation / len(values) ** 0.5
        table.add_row(row, f"{statistics.mean(values):.2f}", f"{deviation:.2f}", f"{error:.2f}", str(len(values)))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="orchestrator/recipes/fashion_accuracy.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    arguments = parser.parse_args()
    with connected(None, NUM_CPUS):
        found = measure(arguments.recipe, arguments.seeds, arguments.rows)
    print_table(found, Path(arguments.recipe).stem)


if __name__ == "__main__":
    main()
