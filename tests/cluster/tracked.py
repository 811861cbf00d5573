"""A whole tracked run without training, as a driver tells it: `python -m tests.cluster.tracked RUN URI STORAGE`."""

import sys
from pathlib import Path

from actors.storage import Folder
from orchestrator.tracking.tracker import Tracker

RUNGS = ("alone", "student")
EPOCHS = range(6)


def opened(run: Path, uri: str, storage: Path) -> Tracker:
    run.mkdir(parents=True, exist_ok=True)
    return Tracker.open(Folder(str(run)), experiment="digits", uri=uri, storage=str(storage))


def begin(tracker: Tracker) -> None:
    tracker.start(None, {"student.epochs": "6", "losses.soft.layers[0]": "x" * 7000}, {"data.train": "abc"})
    for rung in RUNGS:
        tracker.start(rung, {"epochs": "6"}, {"teachers.a": "def"})


def epochs(tracker: Tracker, steps=EPOCHS) -> None:
    for step in steps:
        for rung in RUNGS:
            tracker.epoch(rung, step, {"loss/hard": step / 10, "accuracy": None, "lost": float("nan")})


def finish(tracker: Tracker, run: Path) -> None:
    (run / "config.yaml").write_text("name: digits")
    tracker.artifact(None, "config.yaml")
    for rung in RUNGS:
        tracker.values(rung, {"test.accuracy": 0.9})
        tracker.end(rung, "FINISHED")
    tracker.values(None, {"wall_s": 12.5})
    tracker.end(None, "FINISHED")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    whole = opened(folder, sys.argv[2], Path(sys.argv[3]))
    begin(whole)
    epochs(whole)
    finish(whole, folder)
    print(whole.close())
