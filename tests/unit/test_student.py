"""Same seed, same student, bit for bit; and what a training run refuses to go on with."""

import random
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from actors.data import BatchSampler, training_rows
from actors.distillation import build_distillation
from actors.errors import KnowledgeError
from actors.knowledge import Knowledge, Position
from actors.models import tiny_cnn
from actors.randomness import step_seed
from actors.sources import Given, LocalTeachers
from actors.specs import ImportSpec, InputSpec, TapPair, WeightSpec
from tests.unit.digits_setup import HARD, SOFT, digits, model, save_teacher, student, trained, trainer

LOUD = model("tests.unit.test_student:draws_from_all_generators")
DROPOUT = model("tests.unit.digits_setup:dropout_mlp", taps={"hidden": "3"})
HINT = replace(SOFT, name="hint", loss=ImportSpec("actors.losses:hint_loss"), on=TapPair("hidden", "pool"))


class Meddling:
    """Draws from every generator and builds models between the student's steps; answers like its teachers."""

    def __init__(self, inner) -> None:
        self.inner, self.asked = inner, 0
        self.log, self.likes_ahead = inner.log, inner.likes_ahead

    def ask(self, batch, request):
        self.asked += 1
        torch.rand(self.asked)
        torch.manual_seed(self.asked)
        np.random.rand(3)
        random.random()
        tiny_cnn()
        return self.inner.ask(batch, request)


class Odd:
    """Changes what teachers say."""

    def __init__(self, inner, change) -> None:
        self.inner, self.change = inner, change
        self.log, self.likes_ahead = inner.log, inner.likes_ahead

    def ask(self, batch, request):
        return Given([self.change(batch, one) for one in self.inner.ask(batch, request).result()])


class Noisy(torch.nn.Module):
    def forward(self, inputs):
        return inputs * (1 + random.random() * self.training + np.random.rand() * self.training)


def draws_from_all_generators():
    return torch.nn.Sequential(torch.nn.Flatten(), Noisy(), torch.nn.Linear(64, 10))


def nothing(student_logits, teacher_logits):
    return (student_logits * 0).sum()


def nothing_at_first(student_logits, teacher_logits):
    return ((student_logits - student_logits.detach()) * teacher_logits).sum()


def explodes(student_logits, teacher_logits, *, reduction):
    return student_logits.sum(dim=1) * float("inf")


@pytest.fixture
def spec(tmp_path):
    """Learns from labels, logits and, through a connector, a tap, with dropout and batch statistics."""
    teacher = save_teacher(tmp_path, spec=model(width=24, depth=1, taps={"pool": "pool"}))
    return student([teacher], [HARD, SOFT, HINT], spec=DROPOUT)


def test_the_same_seed_gives_the_same_student(tmp_path, spec):
    first = trained(spec, tmp_path / "a")
    assert trained(spec, tmp_path / "b") == first
    other = replace(spec, recipe=replace(spec.recipe, seed=4))
    assert trained(other, tmp_path / "c") != first
    assert safetensors.torch.load(first).keys() == DROPOUT.model.build().state_dict().keys(), "exported bare"


@pytest.mark.parametrize("net", [DROPOUT, LOUD])
def test_whatever_else_runs_in_the_process_changes_nothing(tmp_path, spec, net):
    spec = replace(spec, model=net, losses=(HARD, SOFT))
    undisturbed = trained(spec, tmp_path / "a")
    torch.manual_seed(1234)
    meddling = Meddling(LocalTeachers.load(spec.teachers))
    assert trained(spec, tmp_path / "b", meddling) == undisturbed
    assert meddling.asked == 8, "two epochs of four steps"


@pytest.mark.parametrize("window", [0, 1, 5, 100])
def test_prefetching_changes_nothing(tmp_path, spec, window):
    assert trained(replace(spec, window=window), tmp_path / "b") == trained(spec, tmp_path / "a")


def test_the_first_weights_do_not_depend_on_losses_or_teachers(tmp_path, spec):
    pixels = torch.rand(1, 1, 8, 8)
    taught = build_distillation(spec, pixels).student.model.state_dict()
    torch.rand(7)
    alone = build_distillation(replace(spec, losses=(HARD,), teachers=()), pixels).student.model.state_dict()
    assert all(torch.equal(taught[name], alone[name]) for name in taught)


def test_dropout_draws_otherwise_in_every_step_and_rank():
    seeds = {step_seed(s, Position(e, i), r) for s in range(3) for e in range(3) for i in range(3) for r in range(3)}
    assert len(seeds) == 81 and all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(0, Position(1, 2), 3) == step_seed(0, Position(1, 2), 3)


def test_the_student_its_connectors_and_nothing_else_is_trained(tmp_path, spec):
    training = trainer(spec, tmp_path / "a")
    before = {name: p.clone() for name, p in training._distillation.named_parameters()}
    teacher = training._source._teachers["wide"]
    training.run()
    moved = {name for name, p in training._distillation.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(before) and any("connector" in name for name in before)
    buffers = dict(training.student.named_buffers())
    assert buffers["2.num_batches_tracked"] == 8 and bool(buffers["2.running_mean"].any()), "in training mode"
    (batch,) = sampled(spec, Position(0, 0))
    (answer,) = (
        LocalTeachers({"wide": teacher})
        .ask(batch, training._distillation.criterion.request(batch.labels, Position()))
        .result()
    )
    assert answer.version == training.state.teachers["wide"]


def test_the_average_follows_the_weights_and_is_what_is_exported(tmp_path, spec):
    spec = replace(spec, recipe=replace(spec.recipe, ema=0.6))
    training = trainer(spec, tmp_path / "a")
    expected: dict[str, torch.Tensor] = {}

    def follow(batch, known):
        """The weights before each step but the first are those after a step."""
        steps = training.state.steps_done
        if steps:
            kept = min(0.6, 1 - 1 / steps)
            for name, now in training._distillation.student.model.state_dict().items():
                moved = expected.get(name, now) * kept + now * (1 - kept)
                expected[name] = moved if now.is_floating_point() else now.clone()
        return known

    training._source = Odd(training._source, follow)
    training.spec = replace(spec, window=0)
    training.run()
    follow(None, None)
    exported = safetensors.torch.load(training.exported())
    assert exported.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(exported[name], value.to(exported[name].dtype))
    last = training._distillation.student.model.state_dict()
    assert not torch.equal(exported["1.weight"], last["1.weight"])


def test_without_an_average_the_weights_themselves_are_exported(tmp_path, spec):
    training = trainer(spec, tmp_path / "a")
    training.run()
    assert training.student is training._distillation.student.model


def test_an_epoch_says_how_much_each_teacher_weighed(tmp_path, spec):
    other = save_teacher(tmp_path, "other", model(width=8, depth=1))
    weighted = ImportSpec("actors.ensemble:mean_losses", {"weights": {"wide": 3}})
    soft = replace(SOFT, teachers=("wide", "other"), ensemble=weighted)
    training = trainer(replace(spec, losses=(HARD, soft), teachers=(*spec.teachers, other)), tmp_path / "a")
    assert [record["weights"] for record in training.run().history] == [{"soft": {"wide": 0.75, "other": 0.25}}] * 2


def sampled(spec, *positions):
    rows = training_rows(digits(), spec.data)
    one = BatchSampler(np.arange(96), np.arange(0), 24, 3, 2)
    return [one.batch(rows, position) for position in positions]


def test_it_learns_and_says_how_well(tmp_path):
    adam = ImportSpec("torch.optim:Adam", {"lr": 0.005})
    net = model(width=64, depth=1, input=InputSpec(mean=(0.02,), std=(0.024,)))
    training = trainer(student(spec=net, epochs=6, optimizer=adam), tmp_path / "a")
    state = training.run()
    assert [record["epoch"] for record in state.history] == list(range(6))
    hard = [record["terms"]["hard"] for record in state.history]
    assert hard[-1] < hard[0] / 2 and state.history[-1]["accuracy"] > 0.3
    assert state.steps_done == 24 and state.rows_trained == 24 * 24 and state.position == Position(6, 0)
    assert state.bytes_received == 0 and state.teachers == {}
    assert set(state.seconds) == {"data", "ask", "wait", "forward", "backward", "evaluation", "checkpoint"}


def test_labelled_rows_are_repeated_to_as_many_as_asked_for(tmp_path):
    training = trainer(replace(student(epochs=1), rows_per_epoch=2 * 96 + 48), tmp_path / "a")
    labelled = training._sampler.labelled
    counts = np.unique(labelled, return_counts=True)[1]
    assert len(counts) == 96 and sorted(set(counts.tolist())) == [2, 3] and len(labelled) == 240
    assert training.run().steps_done == 10


def test_a_label_that_is_no_class_of_the_students_names_the_sample(tmp_path):
    spec = replace(student(spec=model(num_classes=9)), num_classes=9)
    with pytest.raises(ValueError, match=r"^data\.train: sample \d+ has label 9, the student knows 9 classes"):
        trainer(spec, tmp_path / "a").run()


def test_bytes_received_are_counted(tmp_path, spec):
    state = trainer(spec, tmp_path / "a").run()
    assert state.bytes_received == 8 * 24 * 4 * (10 + 24), "logits of 10 classes and a feature of 24"


def test_progress_tells_every_epochs_end_once(tmp_path):
    told = []
    trainer(student(epochs=3), tmp_path / "a", report=told.append).run()
    ends = [progress for progress in told if progress.epoch_done]
    assert [(p.rung, p.epoch, p.epochs, p.step, p.steps) for p in ends] == [("student", e, 3, 4, 4) for e in range(3)]
    assert all(p.accuracy is not None and set(p.terms) == {"hard"} and p.images_per_s > 0 for p in ends)
    assert ends[-1].left_s == 0 and ends[0].left_s > 0 and sum(ends[0].record["shares"].values()) == pytest.approx(1)


def test_half_precision_leaves_the_weights_in_float32(tmp_path):
    half = trained(student(precision="bf16"), tmp_path / "a")
    assert half != trained(student(), tmp_path / "b")
    assert {tensor.dtype for tensor in safetensors.torch.load(half).values()} == {torch.float32}


def test_clipping_holds_the_gradient_to_its_norm(tmp_path):
    training = trainer(student(clip_norm=0.25, optimizer=ImportSpec("torch.optim:SGD", {"lr": 1e-3})), tmp_path / "a")
    training.run()
    gradients = [parameter.grad for parameter in training.student.parameters()]
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm().item() == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("target", ["nothing", "nothing_at_first"])
def test_a_loss_that_is_zero_all_through_its_first_epoch_is_an_error(tmp_path, target):
    idle = replace(SOFT, name="idle", loss=ImportSpec(f"tests.unit.test_student:{target}"), weight=WeightSpec(0, 1, 2))
    training = trainer(student([save_teacher(tmp_path)], [HARD, idle], epochs=4), tmp_path / "a")
    with pytest.raises(ValueError, match=r"^losses\.idle: zero all through its first epoch, .* remove it$"):
        training.run()
    assert len(training.state.history) == 1, "epoch 0 has no weight for it, epoch 1 is its first"


def test_a_loss_may_fall_to_zero_later(tmp_path):
    teacher = save_teacher(tmp_path)
    lazy = Odd(LocalTeachers.load([teacher]), lambda batch, known: known)
    hinge = replace(SOFT, name="hinge", loss=ImportSpec("tests.unit.test_student:only_in_epoch_0"))
    EPOCH.clear()
    assert len(trainer(student([teacher], [HARD, hinge]), tmp_path / "a", lazy).run().history) == 2


EPOCH: list[int] = []


def only_in_epoch_0(student_logits, teacher_logits):
    EPOCH.append(1)
    return (student_logits * (len(EPOCH) <= 4)).square().mean()


def test_a_loss_that_is_not_finite_is_an_error_that_names_it(tmp_path):
    wild = replace(SOFT, name="wild", loss=ImportSpec("tests.unit.test_student:explodes"))
    training = trainer(student([save_teacher(tmp_path)], [HARD, wild]), tmp_path / "a")
    with pytest.raises(ValueError, match=r"^losses\.wild is inf in epoch 1, step 1; lower"):
        training.run()
    assert training.state.history == [] and list((tmp_path / "a").glob("*")) == [], "no checkpoint of it"


def test_knowledge_of_other_pixels_stops_the_run(tmp_path):
    teacher = save_teacher(tmp_path)

    def swapped(batch, known: Knowledge) -> Knowledge:
        return replace(known, digests=batch.digests[::-1]) if batch.position.step == 2 else known

    training = trainer(student([teacher], [SOFT]), tmp_path / "a", Odd(LocalTeachers.load([teacher]), swapped))
    with pytest.raises(KnowledgeError, match="'wide' judged other pixels"):
        training.run()
    assert training.state.steps_done == 2, "the steps before it were trained, no later one"


def test_a_teacher_that_changes_within_a_run_stops_it(tmp_path):
    teacher = save_teacher(tmp_path)

    def renewed(batch, known: Knowledge) -> Knowledge:
        return replace(known, version="f" * 64) if batch.position.step == 3 else known

    training = trainer(student([teacher], [SOFT]), tmp_path / "a", Odd(LocalTeachers.load([teacher]), renewed))
    with pytest.raises(ValueError, match=r"^teacher 'wide' has weights ffffffffffff, the checkpoint was trained with"):
        training.run()
