"""A fuzz of the store's reader: `python -m tests.fuzz.store_reader --inputs 100000 --seed 0`.

Every input lies under the checksum of its own content, so that no checksum does the refusing. Each process that reads
is a child, so that a crash is seen; what broke a promise is kept, and is drawn again by its number.
"""

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HANGS_S = 60
KEPT = "broke"


def child(seed: int, first: int, step: int, stop: int, folder: Path) -> None:
    """Every `step`th input from the `first` on; the last line says which is under way."""
    from tests.fuzz.mutations import drawn
    from tests.fuzz.trying import prepared, tried

    prepared()
    said: Counter[str] = Counter()
    slowest, largest = (0.0, -1, ""), (0, -1, "")
    for number in range(first, stop, step):
        given = drawn(f"{seed}-{number}")
        (folder / "current").write_text(str(number))
        (folder / "input").write_bytes(given.content)
        try:
            answer, seconds, num_bytes = tried(given, folder)
        except Exception as error:
            answer, seconds, num_bytes = f"BROKEN {type(error).__name__}: {error}", 0.0, 0
            keep(folder, number, answer, given.label)
        said[plain(answer)] += 1
        slowest = max(slowest, (seconds, number, given.label))
        largest = max(largest, (num_bytes, number, given.label))
        if number % 64 == first % 64 or number + step >= stop:
            (folder / "said.json").write_text(json.dumps([said, slowest, largest]))


def plain(answer: str) -> str:
    """Without the numbers, so that equal causes are counted as one."""
    return re.sub(r"[-\d.]*\d", "N", answer)[:110]


def keep(folder: Path, number: int, answer: str, label: str) -> None:
    kept = folder.parent / KEPT
    kept.mkdir(exist_ok=True)
    shutil.copy(folder / "input", kept / f"{number}.arrow")
    with (kept / "why.txt").open("a") as why:
        why.write(f"{number}\t{label}\t{answer[:300]}\n")


class Child:
    """One process after another over the same share of the inputs: where one dies, the next goes on behind it."""

    def __init__(self, seed: int, first: int, step: int, stop: int, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[Counter[str], list, list]] = []
        self._seed, self._step, self._stop = seed, step, stop
        folder.mkdir()
        self._process = self._start(first)
        self._seen = ("", time.monotonic())

    def _start(self, first: int) -> subprocess.Popen:
        (self.folder / "said.json").unlink(missing_ok=True)
        work = [str(one) for one in (self._seed, first, self._step, self._stop, self.folder)]
        return subprocess.Popen([sys.executable, "-m", "tests.fuzz.store_reader", "--child", *work])

    @property
    def current(self) -> str:
        path = self.folder / "current"
        return path.read_text() if path.exists() else ""

    def is_done(self) -> bool:
        if self.current != self._seen[0]:
            self._seen = self.current, time.monotonic()
        if self._process.poll() is None:
            if time.monotonic() - self._seen[1] > HANGS_S:
                self._process.kill()
            return False
        if (self.folder / "said.json").exists():
            said, slowest, largest = json.loads((self.folder / "said.json").read_text())
            self.told.append((Counter(said), slowest, largest))
        if self._process.returncode == 0:
            return True
        assert self.current, "the child did not start"
        number, died = int(self.current), self._process.returncode
        why = f"CRASH {signal.Signals(-died).name if died < 0 else died}"
        keep(self.folder, number, why, "")
        self.told.append((Counter({why: 1}), [0, -1, ""], [0, -1, ""]))
        (self.folder / "current").unlink()
        self._process = self._start(number + self._step)
        return False


def fuzzed(inputs: int, seed: int, processes: int, folder: Path) -> dict:
    """`said`: how often, of all inputs; `broken`: how many of them broke a promise."""
    start = time.perf_counter()
    children = [Child(seed, first, processes, inputs, folder / f"child-{first}") for first in range(processes)]
    waiting = list(children)
    while waiting := [one for one in waiting if not one.is_done()]:
        time.sleep(0.1)
    told = [each for one in children for each in one.told]
    said = sum((one for one, _, _ in told), Counter())
    return {
        "inputs": inputs,
        "seconds": round(time.perf_counter() - start, 1),
        "said": dict(said.most_common()),
        "accepted": said["accepted"],
        "broken": sum(count for answer, count in said.items() if answer.startswith(("BROKEN", "CRASH"))),
        "slowest_s": max(slowest for _, slowest, _ in told),
        "most_memory": max(largest for _, _, largest in told),
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        *numbers, folder = sys.argv[2:]
        child(*map(int, numbers), Path(folder))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm"))
    print(json.dumps(result := fuzzed(given.inputs, given.seed, given.processes, folder), indent=2))
    if result["broken"]:
        sys.exit(f"{result['broken']} inputs broke a promise: {folder / KEPT}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
