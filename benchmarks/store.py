"""What a store costs and gains.

(a) An epoch from a full store beside an epoch on constant targets. (b) Whole runs that begin with an empty store, and
second runs on the same store, beside runs without Collegium. (c) Random rows out of 2 GB, beside numpy's in memory.
(d) Bytes a row, and what they cost in the loss, beside TinyViT's format. (build) How fast a store is filled by a pool,
and by Ray Data. All take turns in one run.
"""

from __future__ import annotations

import argparse
from functools import cached_property
from typing import Any

import torch

from actors.memory import keep_freed_memory
from benchmarks import building, encodings, gathering, stores, whole_runs
from benchmarks.demo import Demo
from benchmarks.sidebyside import Goal, keep, say_whether_idle, show_goals

PARTS = ("a", "b", "c", "d", "build")
ALL = "all"
QUICK = {
    "rounds": 1,
    "warm_epochs": 2,
    "epochs": 5,
    "run_rounds": 1,
    "shards": 2,
    "shard_rows": 20_000,
    "calls": 50,
    "loss_rows": 256,
    "shard_file_rows": 2_000,
    "build_rounds": 1,
}


class Store:
    """The parts, each with its numbers and its goals."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments

    @cached_property
    def demo(self) -> Demo:
        return Demo.trained(self._arguments.quick)

    def measure(self, part: str) -> tuple[Any, list[Goal]]:
        if part == "c":
            return gathering.measure(self._arguments)
        by_part = {"a": stores, "b": whole_runs, "d": encodings, "build": building}
        return by_part[part].measure(self.demo, self._arguments)


def main() -> None:
    arguments = parsed()
    say_whether_idle()
    keep_freed_memory()
    store, found, goals = Store(arguments), {}, []
    if set(arguments.parts) - {"c"}:
        print(f"the demo's teachers: {', '.join(teacher.name for teacher in store.demo.teachers)}")
    torch.set_num_threads(arguments.threads)
    for part in arguments.parts:
        found[part], reached = store.measure(part)
        goals += reached
    show_goals(goals)
    keep("store", vars(arguments), **found, goals=goals)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, ALL), default=ALL, help="which of them; left out: all")
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that all of it works")
    parser.add_argument("--rounds", type=int, default=7, help="(a), (c): turns of each way")
    parser.add_argument("--threads", type=int, default=1, help="(a), (b): of torch, everywhere")
    parser.add_argument("--chunk", type=int, default=128, help="(a), (b): rows that a teacher computes at once")
    parser.add_argument("--folder", help="where stores are made; left out: the system's for temporary files")
    parser.add_argument("--warm-epochs", type=int, default=20, help="(a): epochs of a turn")
    parser.add_argument("--epochs", type=int, default=20, help="(b): of a run")
    parser.add_argument("--run-rounds", type=int, default=3, help="(b): turns of each way")
    parser.add_argument("--heavier", type=int, default=2, help="(b): how many times as wide the heavier teachers are")
    parser.add_argument("--heavy-rounds", type=int, default=1, help="(b): turns with these; 0: none")
    parser.add_argument("--shards", type=int, default=8, help="(c): files")
    parser.add_argument("--shard-rows", type=int, default=140_000, help="(c): rows of each file")
    parser.add_argument("--calls", type=int, default=300, help="(c): calls of a turn")
    parser.add_argument("--loss-rows", type=int, default=4_000, help="(d): rows that were drawn")
    parser.add_argument("--shard-file-rows", type=int, default=20_000, help="(d): rows of the files that are measured")
    parser.add_argument("--build-rounds", type=int, default=3, help="(build): turns of each way")
    parser.add_argument("--replicas", type=int, default=1, help="(build): of each teacher")
    parser.add_argument("--actors", type=int, default=2, help="(build): of Ray Data, each with all teachers")
    parser.add_argument("--block", type=int, default=512, help="(build): rows of a shard that Ray Data writes")
    arguments = parser.parse_args()
    if ALL in arguments.parts:
        arguments.parts = list(PARTS)
    if arguments.quick:
        vars(arguments).update(QUICK)
    return arguments


if __name__ == "__main__":
    main()
