"""A run that stops anywhere and goes on gives the student of an undisturbed one, bit for bit."""

from dataclasses import replace

import pytest
import torch

from actors.knowledge import Position
from actors.schedules import build_scheduler
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, TapPair
from tests.unit.digits_setup import HARD, SOFT, model, save_teacher, student, trained, trainer

HINT = replace(SOFT, name="hint", loss=ImportSpec("actors.losses:hint_loss"), on=TapPair("hidden", "pool"))
SGD = ImportSpec("torch.optim:SGD", {"lr": 0.05, "momentum": 0.9})
ADAMW = ImportSpec("torch.optim:AdamW", {"lr": 0.01})
SCHEDULERS = {
    "none": {},
    "OneCycleLR": {"scheduler": ImportSpec("torch.optim.lr_scheduler:OneCycleLR", {"max_lr": 0.1})},
    "CosineAnnealingLR": {"scheduler": ImportSpec("torch.optim.lr_scheduler:CosineAnnealingLR")},
    "MultiStepLR": {"scheduler": ImportSpec("torch.optim.lr_scheduler:MultiStepLR", {"milestones": [1, 2]})},
}


class Killed(Exception):
    pass


class Mortal:
    """Teachers that answer so many times and then take the run with them."""

    def __init__(self, inner, answers: int) -> None:
        self.inner, self.left = inner, answers
        self.log, self.likes_ahead = inner.log, inner.likes_ahead

    def ask(self, batch, request):
        if not self.left:
            raise Killed
        self.left -= 1
        return self.inner.ask(batch, request)


def killing(epoch: int):
    """Called when the checkpoint of an epoch is written, as SIGKILL might come."""

    def report(progress):
        if progress.epoch_done and progress.epoch == epoch:
            raise Killed

    return report


@pytest.fixture
def spec(tmp_path):
    teacher = save_teacher(tmp_path, spec=model(width=24, depth=1, taps={"pool": "pool"}))
    net = model("tests.unit.digits_setup:dropout_mlp", taps={"hidden": "3"})
    return student([teacher], [HARD, SOFT, HINT], spec=net, epochs=3)


def changed(spec, **recipe):
    return replace(spec, recipe=replace(spec.recipe, **recipe))


@pytest.mark.parametrize(
    ("stopped", "every", "name"),
    [
        (1, "epoch", "none"),
        (0, "step", "OneCycleLR"),
        (1, "step", "OneCycleLR"),
        (2, "step", "OneCycleLR"),
        (1, "epoch", "CosineAnnealingLR"),
        (0, "epoch", "MultiStepLR"),
        (0, "step", "MultiStepLR"),
    ],
)
def test_stopped_after_an_epoch(tmp_path, spec, stopped, every, name):
    spec = changed(spec, optimizer=SGD, scheduler_every=every, **SCHEDULERS[name])
    with pytest.raises(Killed):
        trained(spec, tmp_path / "run", report=killing(stopped))
    going_on = trainer(spec, tmp_path / "run")
    assert going_on.state.position == Position(stopped + 1, 0) and len(going_on.state.history) == stopped + 1
    going_on.run()
    assert going_on.exported() == trained(spec, tmp_path / "undisturbed")
    assert going_on.state.steps_done == 12 and going_on.state.rows_trained == 12 * 24


@pytest.mark.parametrize(("optimizer", "answers"), [(SGD, 3), (SGD, 6), (SGD, 11), (ADAMW, 4), (ADAMW, 5), (ADAMW, 7)])
def test_stopped_in_the_middle_of_an_epoch(tmp_path, spec, optimizer, answers):
    """Checkpoints after steps 2, 4 (an epoch's end), 6 ...; the teachers die as many steps ahead as the window."""
    spec = changed(
        spec, optimizer=optimizer, checkpoint_every_steps=2, **SCHEDULERS["OneCycleLR"], scheduler_every="step"
    )
    with pytest.raises(Killed):
        trained(spec, tmp_path / "run", Mortal(LocalTeachers.load(spec.teachers), answers))
    going_on = trainer(spec, tmp_path / "run")
    state = going_on.run()
    undisturbed = trainer(spec, tmp_path / "undisturbed")
    assert undisturbed.run().steps_done == state.steps_done == 12
    assert going_on.exported() == undisturbed.exported()
    told = [[(record["terms"], record["accuracy"]) for record in one.history] for one in (state, undisturbed.state)]
    assert told[0] == told[1], "the means over an epoch include the steps before the stop"


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_killed_between_the_last_step_of_an_epoch_and_its_end(tmp_path, spec):
    """The checkpoint of the epoch's last step is there, the one of its end is not."""
    spec = changed(spec, checkpoint_every_steps=4, **SCHEDULERS["MultiStepLR"])
    training = trainer(spec, tmp_path / "run")
    training._train_epoch(0, training._stream())
    going_on = trainer(spec, tmp_path / "run")
    assert going_on.state.position == Position(0, 4) and going_on.state.history == []
    going_on.run()
    assert going_on.exported() == trained(spec, tmp_path / "undisturbed")
    assert [record["epoch"] for record in going_on.state.history] == [0, 1, 2]


def test_stopped_many_times(tmp_path, spec):
    spec = changed(spec, checkpoint_every_steps=1)
    for _ in range(40):
        training = trainer(spec, tmp_path / "run", Mortal(LocalTeachers.load(spec.teachers), 3))
        try:
            training.run()
            break
        except Killed:
            continue
    assert training.state.steps_done == 12
    assert training.exported() == trained(changed(spec, checkpoint_every_steps=None), tmp_path / "undisturbed")


def test_a_finished_run_is_not_trained_again(tmp_path, spec):
    weights = trained(spec, tmp_path / "run")
    again = trainer(spec, tmp_path / "run", Mortal(LocalTeachers.load(spec.teachers), 0))
    assert len(again.run().history) == 3 and again.exported() == weights


@pytest.mark.parametrize("rule", ["random", "learned", "entropy"])
def test_dice_learned_weights_and_an_average_go_on_as_well(tmp_path, spec, rule):
    other = save_teacher(tmp_path, "other", spec.teachers[0].model, seed=9)
    soft = replace(SOFT, teachers=("wide", "other"), ensemble=ImportSpec(f"actors.ensemble:{rule}"))
    spec = replace(spec, losses=(HARD, soft), teachers=(*spec.teachers, other))
    spec = changed(spec, checkpoint_every_steps=2, ema=0.9)
    with pytest.raises(Killed):
        trained(spec, tmp_path / "run", Mortal(LocalTeachers.load(spec.teachers), 7))
    going_on = trainer(spec, tmp_path / "run")
    state = going_on.run()
    undisturbed = trainer(spec, tmp_path / "undisturbed")
    undisturbed.run()
    assert going_on.exported() == undisturbed.exported()
    weights = [record["weights"]["soft"] for record in state.history]
    assert weights == [record["weights"]["soft"] for record in undisturbed.state.history]
    assert all(sum(one.values()) == pytest.approx(1) for one in weights) and len({str(one) for one in weights}) > 1


def test_how_often_it_is_written_changes_nothing(tmp_path, spec):
    weights = trained(spec, tmp_path / "a")
    assert trained(changed(spec, checkpoint_every_steps=1), tmp_path / "b") == weights


def test_another_teacher_under_the_old_name_is_refused(tmp_path, spec):
    with pytest.raises(Killed):
        trained(spec, tmp_path / "run", report=killing(0))
    other = save_teacher(tmp_path, "other", spec.teachers[0].model, seed=9)
    swapped = replace(spec, teachers=(replace(spec.teachers[0], weights=other.weights),))
    going_on = trainer(swapped, tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"^teacher 'wide' has weights \w{12}, the checkpoint was trained with \w{12}; "
    ):
        going_on.run()
    assert trainer(spec, tmp_path / "run").state.position == Position(1, 0), "nothing of it was written"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_checkpoint_holds_tensors_and_plain_values_alone(tmp_path, spec, name):
    with pytest.raises(Killed):
        trained(changed(spec, **SCHEDULERS[name]), tmp_path / "run", report=killing(0))
    (file,) = (tmp_path / "run").iterdir()
    saved = torch.load(file, weights_only=True)
    assert file.name == "step-000000004.pt"
    assert set(saved) == {"distillation", "optimizer", "state", *(["scheduler"] if name != "none" else [])}
    assert any("connector" in key for key in saved["distillation"]), "what is not exported is saved as well"


def test_schedulers_are_told_the_length_of_the_run():
    def built(target, every="epoch", **kwargs):
        scheduler = ImportSpec(f"torch.optim.lr_scheduler:{target}", kwargs)
        recipe = student(epochs=5, scheduler=scheduler, scheduler_every=every).recipe
        return build_scheduler(recipe, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1), 7)

    assert built("OneCycleLR", "step", max_lr=0.1).total_steps == 35
    assert built("CosineAnnealingLR").T_max == 5 and built("CosineAnnealingLR", T_max=3).T_max == 3
    assert built("StepLR", step_size=2).step_size == 2
    assert build_scheduler(student().recipe, torch.optim.SGD([torch.zeros(1)], lr=0.1), 7) is None
