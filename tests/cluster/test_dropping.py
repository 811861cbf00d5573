"""A run that loses a teacher for good, and may go on without it: on a real cluster, to a marked end."""

import json
import os
import signal
from pathlib import Path

import psutil
from rich.console import Console

from actors.serving import POOL_FILE
from orchestrator.experiment import Experiment
from orchestrator.live import LiveView
from orchestrator.tracking.journal import Started
from tests.cluster.stores import journal

MIDDLE = "{model: {target: 'actors.models:mlp', kwargs: {width: 48}}, taps: {late: pool}, epochs: 12}"
OVERRIDES = (
    "teachers.wide.train.epochs=2",
    "teachers.convolutional.train.epochs=1",
    "teachers.wide.may_be_dropped=true",
    f"assistants.middle={MIDDLE}",
    "student.epochs=2",
    "student.alone=false",
    "tracking.send=false",
)


class Killing(LiveView):
    """Once the assistant has learned for an epoch, kills all of its teachers, and takes the weights of one away."""

    killed = False

    def update(self, progress) -> None:
        super().update(progress)
        if progress.rung != "middle" or not progress.epoch_done or self.killed:
            return
        self.killed = True
        [weights] = self.storage.glob("digits/*/rungs/wide/weights.safetensors")
        weights.unlink()
        children = psutil.Process().children(recursive=True)
        teachers = [child.pid for child in children if child.name().startswith("ray::TeacherAct")]
        assert len(teachers) == 2
        for pid in teachers:
            os.kill(pid, signal.SIGKILL)


def test_a_teacher_that_is_lost_for_good_is_dropped_and_that_is_marked_everywhere(cluster, tmp_path):
    with open(tmp_path / "log.txt", "w+") as log:
        view = Killing(Console(file=log, width=200))
        view.storage = tmp_path
        result = Experiment.from_yaml("orchestrator/recipes/digits.yaml", [f"storage={tmp_path}", *OVERRIDES]).run(
            view=view
        )
        log.seek(0)
        said = log.read()

    run = Path(result.folder)
    rungs = {rung["name"]: rung for rung in json.loads((run / "result.json").read_text())["rungs"]}
    assert list(rungs["middle"]["dropped"]) == ["wide"] and "weights.safetensors" in rungs["middle"]["dropped"]["wide"]
    assert rungs["student"]["dropped"] == {}
    weights = [record["weights"]["soft"] for record in rungs["middle"]["history"]]
    assert len(weights) == 12 and weights[0] == {"wide": 0.5, "convolutional": 0.5}
    assert weights[-1] == {"wide": 0.0, "convolutional": 1.0}
    assert {model.name for model in result.models} == {"convolutional", "ensemble", "middle", "student"}

    assert "middle  goes on without wide" in said
    assert "While middle was trained it lost wide" in (run / "report.html").read_text()
    tags = [(event.rung, event.tags) for event in journal(run).events if isinstance(event, Started)]
    assert ("middle", {"collegium.dropped": "wide"}) in tags
    assert (None, {"collegium.dropped.middle": "wide"}) in tags

    pool = json.loads((run / "rungs/middle" / POOL_FILE).read_text())
    assert pool["dropped"] == ["wide"] and pool["restarts"] == {"wide": 1, "convolutional": 1}
    assert pool["replicas"]["wide"][-1][1] == 0 and pool["replicas"]["convolutional"][-1][1] == 1
    stored = [json.loads(file.read_text())["teachers"] for file in (tmp_path / "models").glob("*/outcome.json")]
    assert stored == [{}, {}], "the two teachers, and no assistant"
