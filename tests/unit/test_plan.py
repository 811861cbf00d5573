"""What a config will do: the ladder, bytes per step and resources, by hand."""

import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from actors.specs import ImportSpec, LossSpec, Resources, WeightSpec
from orchestrator.checking import check
from orchestrator.config import ExperimentConfig
from orchestrator.ladder import alone_losses, ladder, teachers
from orchestrator.plan import Need, Teaching, inputs_of, make_plan
from orchestrator.printing import print_plan

DIGITS = Path(__file__).with_name("digits.yaml")
DERIVED = "inputs=derived"
CE = ImportSpec("actors.losses:cross_entropy_loss")


def config(*overrides) -> ExperimentConfig:
    return ExperimentConfig.from_yaml(DIGITS, overrides)


@cache
def plan(*overrides):
    return make_plan(config(*overrides), check(config(*overrides)))


def rung(name, *overrides):
    return next(planned for planned in plan(*overrides).rungs if planned.rung.name == name)


def on_labels(weight: WeightSpec) -> LossSpec:
    return LossSpec("hard", CE, "labels", weight)


def test_every_rung_stands_after_those_that_teach_it():
    rungs = ladder(config("assistants.big={model: 'actors.models:mlp'}", "assistants.mid={model: 'actors.models:mlp'}"))
    assert [(one.name, one.role, one.teachers) for one in rungs] == [
        ("wide", "teacher", ()),
        ("deep", "teacher", ()),
        ("alone", "alone", ()),
        ("big", "assistant", ("wide", "deep")),
        ("mid", "assistant", ("big",)),
        ("student", "student", ("mid",)),
    ]
    assert [one.where for one in rungs[2:4]] == ["student", "assistants.big"] and rungs[0].where == "teachers.wide"


def test_a_teacher_with_a_checkpoint_is_no_rung():
    old = "teachers.deep={model: 'actors.models:mlp', taps: {late: pool}, checkpoint: w.safetensors}"
    assert [one.name for one in ladder(config(old))] == ["wide", "alone", "student"]
    assert [one.name for one in ladder(config(old, "student.alone=false"))] == ["wide", "student"]
    specs = teachers(config(old, "assistants.big={model: 'actors.models:mlp'}"))
    assert {name: spec.weights for name, spec in specs.items()} == {"wide": "", "deep": "w.safetensors", "big": ""}


def test_the_baseline_is_the_student_without_what_teachers_give():
    alone, student = ladder(config("student.data={labelled: student, unlabelled: teachers}"))[2:]
    assert (alone.labelled, alone.unlabelled, student.unlabelled) == ("student", None, "teachers")
    assert alone.model.model == student.model.model and alone.model.taps == {} and alone.window == 0
    assert alone.recipe == student.recipe and alone.rows_per_epoch == 300 + 897, "as many steps as the student"
    alone, student = ladder(config())[2:]
    assert alone.recipe == student.recipe
    assert [(loss.name, loss.weight) for loss in alone.losses] == [("hard", WeightSpec(1, 1, 0))]


def test_the_baselines_weights_add_up_to_1_in_every_epoch():
    weights = (WeightSpec(0, 3, 9), WeightSpec(1, 1), WeightSpec(2, 0, 1))
    first, second = alone_losses(tuple(on_labels(weight) for weight in weights))
    for epoch in range(12):
        assert first.weight.at(epoch) == 0.75 and second.weight.at(epoch) == 0.25


@pytest.mark.parametrize("losses", [(), (on_labels(WeightSpec(1, 0, 4)),), (LossSpec("soft", CE, "logits"),)])
def test_without_a_lasting_loss_on_labels_the_baseline_learns_by_cross_entropy(losses):
    assert alone_losses(losses) == (LossSpec("hard", CE, "labels", WeightSpec(1, 1)),)


def test_bytes_per_step_by_hand():
    assert [(one.teacher, one.outputs, one.bytes_per_step) for one in rung("student", DERIVED).teaching] == [
        ("wide", ("logits",), 60 * (10 * 4 + 8)),
        ("deep", ("logits",), 60 * (10 * 4 + 8)),
    ]
    hint = "losses.hint={loss: 'actors.losses:hint_loss', on: {student: late, teacher: late}, teachers: [deep]}"
    again = hint.replace("losses.hint", "losses.again")
    assert [
        (one.teacher, one.outputs, one.bytes_per_step) for one in rung("student", DERIVED, hint, again).teaching
    ] == [
        ("wide", ("logits",), 60 * (10 * 4 + 8)),
        ("deep", ("logits", "late"), 60 * ((10 + 64) * 4 + 8)),
    ]
    features_alone = [hint, "losses.soft.teachers=[wide]", "data.batch_size=100"]
    assert rung("student", DERIVED, *features_alone).teaching[1].bytes_per_step == 100 * (64 * 4 + 8)
    assert rung("alone").teaching == rung("wide").teaching == ()


CNN = "{target: 'actors.models:plain_cnn', kwargs: {width: 8, stem_stride: 1}}"
ATTENTION = (
    f"teachers.wide.model={CNN}",
    "teachers.wide.taps={late: stage1}",
    f"student.model={CNN}",
    "student.taps={late: stage1}",
    "losses.attention={loss: 'actors.losses:attention_transfer_loss', on: {student: late, teacher: late}, "
    "teachers: [wide]}",
)


def test_bytes_with_reductions_by_hand():
    wide, deep = rung("student", DERIVED, *ATTENTION).teaching
    label, places = "attention_map(late, exponent=2.0)", 8 * 8
    reduced, raw = 40 + 4 * places + 8, 40 + 4 * 8 * places + 8
    assert wide == Teaching("wide", ("logits", label), reduced, raw, 60 * reduced)
    assert deep == Teaching("deep", ("logits",), 48, 48, 60 * 48)
    at_student = rung("student", DERIVED, *ATTENTION, "losses.attention.reduce=student").teaching[0]
    assert at_student == Teaching("wide", ("logits", "late"), raw, raw, 60 * raw)


def test_bytes_of_the_largest_logits_by_hand():
    wide, deep = rung("student", DERIVED, "losses.soft.top_k=3").teaching
    sent = 3 * 4 + 3 * 2 + 4 + 8
    assert wide == Teaching("wide", ("top_k(logits, k=3)",), sent, 48, 60 * sent)
    assert replace(deep, teacher="wide") == wide
    too_many = rung("student", DERIVED, "losses.soft.top_k=6").teaching[0]
    assert too_many == Teaching("wide", ("logits",), 48, 48, 60 * 48), "6 of 10 are no smaller than all"


def test_the_plan_is_printed_with_bytes_per_sample_and_what_they_were_unreduced():
    console = Console(record=True, width=200, file=io.StringIO())
    print_plan(plan(DERIVED, *ATTENTION), console)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "student wide logits, attention_map(late, exponent=2.0) 304 B (unreduced 2.1 kB) 18.2 kB" in lines
    assert "student deep logits 48 B 2.88 kB" in lines
    assert "teachers build the pixels from ids and views (inputs: derived)" in lines


def test_where_pixels_are_sent_no_digests_come_back():
    sent = plan("inputs=sent")
    assert [one.bytes_per_step for one in sent.rungs[-1].teaching] == [60 * 10 * 4, 60 * 10 * 4]
    console = Console(record=True, width=200, file=io.StringIO())
    print_plan(sent, console)
    assert "pixels are sent to the teachers (inputs: sent)" in console.export_text().splitlines()
    assert plan("source=local").inputs is None


def test_pixels_are_sent_where_that_is_cheaper_than_to_build_them_again():
    found = check(config())
    dear, cheap = (replace(found, row_bytes=1_000_000, row_seconds=seconds) for seconds in (0.011, 0.009))
    assert (inputs_of(config(), dear), inputs_of(config(), cheap)) == ("sent", "derived")
    assert inputs_of(config("inputs=sent"), cheap) == "sent"


def test_steps_and_parameters():
    found = {planned.rung.name: (planned.steps_per_epoch, planned.parameters) for planned in plan().rungs}
    student = 64 * 16 + 16 + 16 * 10 + 10
    assert found == {
        "wide": (14, 64 * 128 + 128 + 128 * 10 + 10),
        "deep": (14, 64 * 64 + 64 + 2 * (64 * 64 + 64) + 64 * 10 + 10),
        "alone": (5, student),
        "student": (5, student),
    }


def test_what_a_rung_takes_of_a_cluster():
    many = ["student.num_workers=2", "teachers.wide.replicas=3", "teachers.deep.resources={num_cpus: 0.5}"]
    assert rung("student", *many).need.amounts == {"CPU": 2 + 3 + 0.5}
    assert rung("student", *many).need.parts == {
        "CPU": ["2 for 2 student workers", "3 for 3 x teacher wide", "0.5 for 1 x teacher deep"]
    }
    assert rung("wide", *many).need.amounts == {"CPU": 1} and rung("alone", *many).need.amounts == {"CPU": 2}
    assert rung("student", "source=local").need.amounts == {"CPU": 1}, "teachers live in the student's process"
    assert plan(*many).side_by_side == {"CPU": 1 + 0.5 + 2 + 5.5}


def test_resources_of_the_users_own_count():
    need = Need()
    need.add(Resources(0, 0.25, {"tpu": 2}), 3, "for three", "a.resources", "a.replicas")
    assert need.amounts == {"GPU": 0.75, "tpu": 6} and need.parts["tpu"] == ["6 for three"]
    assert need.keys["tpu"] == ["a.replicas", "a.resources.custom.tpu"]


GPUS = [
    "teachers.wide.resources={num_cpus: 1, num_gpus: 1}",
    "teachers.wide.replicas=4",
    "student.resources={num_cpus: 1, num_gpus: 1}",
]


def test_what_does_not_fit_the_cluster_is_refused_with_numbers():
    with pytest.raises(ValueError) as refused:
        plan(*GPUS).refuse_if_larger({"CPU": 16, "GPU": 4})
    assert str(refused.value) == (
        "placement: student needs 5 GPU (1 for 1 student worker + 4 for 4 x teacher wide), the cluster has 4; "
        "lower student.resources.num_gpus or teachers.wide.replicas or teachers.wide.resources.num_gpus"
    )
    plan(*GPUS).refuse_if_larger({"CPU": 16, "GPU": 5})


def test_every_shortage_is_named_and_a_cluster_without_gpus_has_0():
    with pytest.raises(ValueError) as refused:
        plan(*GPUS).refuse_if_larger({"CPU": 1})
    lines = str(refused.value).splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "placement: wide needs 1 GPU",
        "placement: alone needs 1 GPU",
        "placement: student needs 6 CPU",
        "placement: student needs 5 GPU",
    ]
    assert lines[0].endswith("the cluster has 0; lower teachers.wide.resources.num_gpus")


def test_what_is_not_installed_here_leaves_a_plan_with_gaps():
    found = plan("teachers.wide.model.target=not_installed_anywhere:net")
    assert found.elsewhere == ("teachers.wide.model.target: not_installed_anywhere:net",)
    assert [planned.parameters for planned in found.rungs] == [0] * 4
    assert {taught.bytes_per_step for planned in found.rungs for taught in planned.teaching} == {None}


def test_what_the_store_will_keep_is_counted():
    """300 samples in 4 views; of each teacher 10 logits of a byte, two numbers of their levels, 16 bytes of id, view
    and digest."""
    assert plan().stored == {}
    assert plan("store={encoding: float16}").stored == {"student": 300 * 4 * 2 * (10 * 2 + 16)}
    assert plan("store=true").stored == {"student": 300 * 4 * 2 * (10 + 4 + 16)}
    assert plan("store=true", "data.num_views=fresh").stored == {"student": 300 * 8 * 2 * (10 + 4 + 16)}
