"""What `check` finds before anything starts. Every refusal begins with the config key."""

from functools import cache
from pathlib import Path

import pytest
import torch

from actors.ensemble import combines
from actors.specs import ENSEMBLE_RULES
from actors.weights import weights_as_bytes
from orchestrator.checking import check
from orchestrator.config import ExperimentConfig
from tests.unit.digits_setup import model

DIGITS = Path(__file__).with_name("digits.yaml")
HERE = "tests.unit.test_checking"
MLP = "model: {target: 'actors.models:mlp', kwargs: {%s}}"
TRAIN = "train: {slice: teachers, epochs: 1, optimizer: 'torch.optim:Adam'}"


@cache
def checked(*overrides):
    return check(ExperimentConfig.from_yaml(DIGITS, overrides))


def refusal(*overrides) -> str:
    with pytest.raises(ValueError) as refused:
        checked(*overrides)
    return str(refused.value)


def detached(student, teacher):
    return (student.detach() - teacher).square().mean()


def through_numbers(student, teacher):
    """Its graph ends where values are read out of it."""
    return torch.tensor((student - teacher).square().mean().item(), requires_grad=True)


def reads_values(student, teacher):
    """Its control flow looks at values, so it cannot be faked."""
    gap = (student - teacher).square().mean()
    return gap if gap.item() >= 0 else -gap


def fails(student, teacher):
    raise ValueError("not with these")


def per_row(student, teacher):
    return (student - teacher).square().mean(dim=1)


def unmarked_rule(*, shares):
    return shares


@combines(paper="mine", gives="weights")
def halves_of_three(*, teachers):
    return torch.tensor([0.75] * len(teachers))


@combines(paper="mine", gives="weights")
def by_row_unsaid(*, teachers, labels):
    return torch.full((len(teachers), len(labels)), 0.5)


def plain_gap(student, teacher):
    return (student - teacher).square().mean()


def as_floats(dataset, sample_id, generator):
    image, label = dataset[sample_id]
    return image[None].astype("float32"), label


def as_rows(dataset, sample_id, generator):
    image, label = dataset[sample_id]
    return image.flatten(), label


def with_labels(student, teacher, labels):
    """Needs a label in every row, as it has no reduction."""
    return over_classes(student, labels) + 0 * teacher.sum()


def over_classes(student, labels):
    """On labels, and without a reduction that would let unlabelled rows be masked."""
    return torch.nn.functional.cross_entropy(student, labels)


def connector_alone(student, teacher):
    return teacher.mean() + 0 * sum(range(3))


def of_the_connector(student, teacher):
    return (student - teacher).square().mean()


class Deaf(torch.nn.Module):
    """A connector that learns and lets no gradient through."""

    def __init__(self, student_shape, teacher_shape) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(*student_shape, *teacher_shape)

    def forward(self, features):
        return self.layer(features.detach())


class NoDataset:
    pass


def restless_view(dataset, sample_id, generator):
    """Depends on what was drawn before it."""
    return torch.randint(0, 255, (1, 8, 8), dtype=torch.uint8).numpy(), 0


class Torn:
    def __len__(self) -> int:
        return 1397

    def __getitem__(self, index: int):
        raise OSError("gone")


class LabelledTen:
    def __len__(self) -> int:
        return 1397

    def __getitem__(self, index: int):
        return torch.zeros(8, 8, dtype=torch.uint8), 10


def soft(attribute: str) -> tuple[str, str]:
    return f"losses.soft.loss={HERE}:{attribute}", "losses.soft.kwargs={}"


def test_what_is_found():
    findings = checked()
    assert findings.num_classes == 10 and findings.elsewhere == ()
    assert findings.steps_per_epoch == {"wide": 14, "deep": 14, "alone": 5, "student": 5}
    # 64 * 16 + 16 and 16 * 10 + 10 weights; 64 * 128 + 128 and 128 * 10 + 10.
    assert (findings.parameters["student"], findings.parameters["wide"]) == (1210, 9610)
    assert list(findings.teachers) == ["wide", "deep"]
    assert findings.teachers["wide"].shapes == {"logits": (10,), "late": (128,)}


def test_a_misspelt_argument_is_named_with_its_key_and_the_right_spelling():
    assert refusal("losses.soft.kwargs={temprature: 2}") == (
        "losses.soft.kwargs: kd_loss() has no argument 'temprature'; did you mean 'temperature'?"
    )
    assert refusal("student.scheduler={target: 'torch.optim.lr_scheduler:StepLR'}") == (
        "student.scheduler.kwargs: StepLR() needs 'step_size'"
    )


@pytest.mark.parametrize(
    ("key", "called"),
    [
        ("teachers.deep.model.kwargs", "mlp()"),
        ("student.optimizer.kwargs", "Adam()"),
        ("teachers.wide.train.optimizer.kwargs", "Adam()"),
        ("data.views.kwargs", "crop_and_flip()"),
        ("data.test.kwargs", "Digits()"),
    ],
)
def test_every_section_names_its_own_arguments(key, called):
    assert refusal(f"{key}.mispelt=3").startswith(f"{key}: {called} has no argument 'mispelt'")


def test_what_collegium_itself_gives_cannot_be_given_twice():
    text = refusal("losses.soft.kwargs={reduction: mean}")
    assert text == "losses.soft.kwargs: kd_loss() is given 'reduction' by Collegium; leave it out"


@pytest.mark.parametrize("key", ["student", "teachers.wide"])
def test_a_tap_that_does_not_exist_is_refused(key):
    assert refusal(f"{key}.taps={{middle: blocks.7}}").startswith(
        f"{key}.taps.middle: the model has no module 'blocks.7'; "
    )


def test_a_checkpoint_whose_shapes_do_not_fit_is_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(weights_as_bytes(model(width=100, depth=1).model.build()))
    given = f"teachers.old={{{MLP % 'width: 128, depth: 1'}, checkpoint: {file}}}"
    assert refusal(given).startswith(
        "teachers.old.checkpoint: the weights do not fit the model: "
        "stem.1.weight has shape (100, 64) in the file and (128, 64) in the model; "
    )
    assert "old" in checked(given.replace("128", "100")).teachers
    file.unlink()
    assert refusal(given) == (
        f"teachers.old.checkpoint: expected a file of weights, found none at {str(file)!r}; check the path"
    )


@pytest.mark.parametrize("target", ["detached", "connector_alone"])
def test_a_loss_that_reaches_no_parameter_of_the_student_is_refused(target):
    assert refusal(*soft(target)) == (
        "losses.soft: its graph reaches no parameter of the student, so nothing is learned by it"
    )


def test_a_loss_that_reaches_its_connector_alone_is_refused():
    """Widths 16 and 128 differ, so there is a connector, which would learn, while the student would not."""
    idle = f"losses.idle={{loss: '{HERE}:of_the_connector', on: {{student: late, teacher: late}}, teachers: [wide]"
    assert refusal(idle + f", connector: '{HERE}:Deaf'}}").startswith(
        "losses.idle: its graph reaches no parameter of the s"
    )
    assert checked(idle + "}").num_classes == 10, "with an ordinary connector it is a loss like others"


def test_a_loss_that_is_not_one_value_is_refused():
    assert refusal(*soft("per_row")) == ("losses.soft: expected one value, got shape (4,); reduce it to its mean")


def test_a_loss_that_fails_is_named():
    assert refusal(*soft("fails")) == f"losses.soft: {HERE}:fails failed: not with these"


@pytest.mark.parametrize(("name", "kwargs"), [("nll_loss", "{}"), ("mse_loss", "{weight: 3}")])
def test_a_loss_that_fails_in_an_unusual_way_is_named(name, kwargs):
    text = refusal(f"losses.soft.loss=torch.nn.functional:{name}", f"losses.soft.kwargs={kwargs}")
    assert text.startswith(f"losses.soft: torch.nn.functional:{name} failed: ")


def test_a_loss_that_looks_at_values_is_checked_on_real_rows():
    assert checked(*soft("reads_values")).num_classes == 10


def test_a_loss_whose_graph_ends_in_a_number_is_refused_for_that():
    assert "reaches no parameter" in refusal(*soft("through_numbers"))


def test_a_loss_without_masks_cannot_have_unlabelled_rows():
    unlabelled = "student.data={labelled: student, unlabelled: teachers}"
    assert refusal(unlabelled, f"losses.hard.loss={HERE}:over_classes").startswith("losses.hard: it relates labelled")
    assert checked(unlabelled).steps_per_epoch["student"] == (300 + 897) // 60
    assert checked(unlabelled).steps_per_epoch["alone"] == (300 + 897) // 60, "the baseline has as many steps"


def test_a_dropped_loss_is_not_asked_about():
    weightless = f"losses.more={{loss: '{HERE}:fails', on: logits, weight: 0}}"
    assert checked(weightless).num_classes == 10
    assert refusal(weightless, "losses.soft.weight=0").endswith(
        "losses: no loss listens to a teacher; give at least one on logits or on taps, with a weight"
    )


def test_long_trainings_are_checked_as_quickly():
    ramp = "losses.soft.weight={ramp: [-1, 1], epochs: 1000000000}"
    assert checked("student.epochs=1000000000", ramp).num_classes == 10
    text = refusal("student.epochs=1000000000", ramp, "losses.hard.weight=0")
    assert text == "losses: all weights of student are 0 in epoch 500000000; give one of them a weight"


def test_the_losses_of_an_assistant_are_named_by_their_own_key():
    mid = f"{{model: {{target: 'actors.models:mlp'}}, losses: {{own: {{loss: '{HERE}:fails', on: logits}}}}}}"
    assert refusal(f"assistants.mid={mid}") == f"assistants.mid.losses.own: {HERE}:fails failed: not with these"


def test_views_of_two_kinds_are_refused():
    assert refusal(f"data.views={HERE}:as_floats") == (
        "data.views: it gives image in float32, data.evaluation_view gives image in uint8; give both the same (uint8 "
        "is divided by 255, floats are taken as they are)"
    )


def test_an_epoch_without_any_weight_is_refused():
    text = refusal("losses.hard.weight={ramp: [0, 1], epochs: 2}", "losses.soft.weight={ramp: [0, 1], epochs: 3}")
    assert text == "losses: all weights of student are 0 in epoch 0; give one of them a weight"


def test_a_teacher_of_some_classes_beside_those_of_all():
    def of(name, classes):
        return f"teachers.{name}={{{MLP % f'width: 8, num_classes: {len(classes)}'}, class_map: {classes}, {TRAIN}}}"

    part, whole = of("part", [2, 0, 1]), of("whole", [9, *range(9)])
    same = "losses.soft.ensemble: actors.ensemble:mean_probabilities needs teachers of the same classes, got"
    assert refusal(part) == f"{same} wide: all, deep: all, part: [0, 1, 2]; use mean_losses"
    other = refusal(part, of("rest", [3, 4]), "losses.soft.teachers=[part, rest]")
    assert other == f"{same} part: [0, 1, 2], rest: [3, 4]; use mean_losses"
    assert checked(whole).num_classes == 10
    assert checked(part, of("again", [0, 1, 2]), "losses.soft.teachers=[part, again]").num_classes == 10
    masked = refusal(part, "losses.soft.ensemble=mean_losses", *soft("with_labels"))
    assert masked.startswith("losses.soft: it needs the label of every sample, and teacher 'part' has a class_map")


def test_class_maps():
    def mapped(classes, num_classes):
        kwargs = f"width: 8, num_classes: {num_classes}"
        return f"teachers.part={{{MLP % kwargs}, class_map: {classes}, {TRAIN}}}"

    soft = "losses.soft.ensemble=mean_losses"
    assert refusal(mapped("[0, 1]", 3), soft) == "teachers.part.class_map: expected 3 classes (its outputs), got 2"
    assert refusal(mapped("[0, 10]", 2), soft) == "teachers.part.class_map: class 10 is not among the data's 10"
    assert refusal(f"teachers.part={{{MLP % 'num_classes: 3'}, {TRAIN}}}", soft) == (
        "teachers.part.model: its logits have 3 classes, the student's 10; give teachers.part.class_map"
    )
    assert checked(mapped("[7, 3]", 2), soft).teachers["part"].shapes == {"logits": (2,)}


def test_an_assistant_of_other_classes_is_named_by_its_own_key():
    text = refusal(f"assistants.mid={{{MLP % 'num_classes: 3'}}}")
    assert text.startswith("assistants.mid.model: ")


def test_a_student_of_too_few_classes_is_refused():
    text = refusal(f"data.train={HERE}:LabelledTen")
    assert text.startswith("student.model: its logits have 10 classes, data.train has label 10; raise num_classes")


def test_data_that_cannot_be_learned_from_is_refused():
    assert "data.test has label 10" in refusal(f"data.test={HERE}:LabelledTen")
    assert refusal(f"data.views={HERE}:restless_view").startswith("data.views: the same sample and view")
    assert refusal(f"data.train={HERE}:Torn").startswith("data.views: the first rows cannot be read: OSError: gone")
    assert refusal("data.slices.validation=1", "student.num_workers=2").startswith("data.slices.validation: expected")


@pytest.mark.parametrize(
    ("key", "recipe"),
    [
        ("student.optimizer", "{target: 'torch.optim:SGD', kwargs: {lr: -1}}"),
        ("student.optimizer", "torch.optim:LBFGS"),
        ("student.scheduler", "torch.optim.lr_scheduler:ReduceLROnPlateau"),
    ],
)
def test_a_recipe_that_cannot_take_a_step_is_refused(key, recipe):
    assert refusal(f"{key}={recipe}").startswith(f"{key}: it cannot be used: ")


def test_a_slice_smaller_than_a_batch_is_refused():
    assert refusal("data.slices.student=59") == (
        "student: 59 samples do not fill one batch of 60; enlarge the slice or lower data.batch_size"
    )
    assert refusal("teachers.wide.train.batch_size=898").startswith("teachers.wide: 897 samples do not fill")
    assert refusal("data.slices.student=5000").startswith(
        "data.slices: they add up to 6097 samples, data.train has 1397;"
    )


def test_what_is_no_dataset_is_refused():
    assert refusal(f"data.test={HERE}:NoDataset") == (
        "data.test: expected a dataset with a length and rows by number, got NoDataset"
    )
    assert refusal("data.train={target: 'builtins:open', kwargs: {file: nowhere}}").startswith(
        "data.train: builtins:open failed: FileNotFoundError: "
    )


def test_a_model_that_cannot_be_built_or_fed_is_refused():
    assert refusal("student.model.kwargs.depth=0").startswith("student.model: actors.models:mlp failed: ValueError: ")
    assert refusal("student.input={size: 9}").startswith("student.model: its forward failed on input (1, 9, 9)")
    assert refusal("teachers.wide.model.kwargs.channels=3").startswith("teachers.wide.model: its forward failed")


def test_names_that_torch_uses_itself_are_no_problem():
    half = f"teachers.half={{{MLP % 'width: 8'}, {TRAIN}}}"
    train = "losses.train={loss: 'actors.losses:kd_loss', on: logits}"
    assert list(checked(half, train).teachers) == ["wide", "deep", "half"]


def test_the_weights_of_an_ensemble_are_checked():
    def weighted(weights):
        return f"losses.soft.ensemble={{target: mean_losses, kwargs: {{weights: {weights}}}}}"

    key = "losses.soft.ensemble.kwargs.weights: "
    assert refusal(weighted("[1, 2]")) == key + "expected a number for each teacher's name, got [1, 2]"
    left_out = "expected weights above 0, got [0.0, 1.0]; leave a teacher without weight out of `teachers`"
    assert refusal(weighted("{wide: 0}")) == key + left_out
    assert refusal("losses.soft.kwargs.temperature=hot") == (
        "losses.soft.kwargs.temperature: expected a number, got 'hot'"
    )


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["losses.soft.ensemble=entropy", *soft("plain_gap")],
            "actors.ensemble:entropy weighs each sample, and tests.unit.test_checking:plain_gap gives one value for a "
            "whole batch (it has no `reduction`); use mean_losses, random or learned",
        ),
        (
            ["losses.soft.ensemble=mean_logits", "losses.soft.on={student: late, teacher: late}"],
            "actors.ensemble:mean_logits needs `on: logits`, got taps; use mean_losses",
        ),
        (
            ["losses.soft.kwargs.standardize=true"],
            "actors.ensemble:mean_probabilities takes the mean at the loss's temperature, which `standardize` changes",
        ),
        (["losses.soft.ensemble=label_routing"], "routes: all teachers know the same classes; say who teaches which"),
        (
            ["losses.soft.ensemble={target: label_routing, kwargs: {routes: {wide: [0], depp: [1]}}}"],
            "routes: 'depp' is none of the teachers wide, deep; leave it out",
        ),
        (
            [f"losses.soft.ensemble={HERE}:halves_of_three"],
            f"expected weights of {HERE}:halves_of_three that add up to 1 over the teachers, got [1.5]",
        ),
        (
            [f"losses.soft.ensemble={HERE}:by_row_unsaid"],
            f"expected weights (teachers,) of {HERE}:by_row_unsaid, (2,) here, got (2, 4)",
        ),
        (
            [f"losses.soft.ensemble={HERE}:unmarked_rule"],
            "tests.unit.test_checking:unmarked_rule is no ensemble rule; mark it by actors.ensemble:combines",
        ),
    ],
)
def test_a_rule_that_could_not_work_is_refused(overrides, text):
    assert refusal(*overrides).startswith(f"losses.soft.ensemble: {text}")


@pytest.mark.parametrize("k", [10, 11, 1000])
def test_there_must_be_more_classes_than_are_heard(k):
    assert refusal(f"losses.soft.top_k={k}") == (
        f"losses.soft.top_k: expected fewer than the 10 classes of teacher 'wide', got {k}; leave it out to hear all"
    )
    few = f"teachers.few={{{MLP % 'width: 8, num_classes: 3'}, class_map: [1, 5, 2], {TRAIN}}}"
    text = refusal(few, "losses.soft.top_k=3", "losses.soft.ensemble=mean_losses")
    assert text.startswith("losses.soft.top_k: expected fewer than the 3 classes of teacher 'few', got 3")


@pytest.mark.parametrize("rule", ENSEMBLE_RULES)
def test_every_rule_works_on_the_largest_logits(rule):
    kwargs = "{routes: {wide: [0, 1], deep: [2]}}" if rule == "label_routing" else "{}"
    assert (
        checked("losses.soft.top_k=2", f"losses.soft.ensemble={{target: {rule}, kwargs: {kwargs}}}").num_classes == 10
    )


CNN = "model={target: 'actors.models:plain_cnn', kwargs: {width: 8, stem_stride: 1}}"
FSP = "losses.fsp={loss: 'actors.losses:fsp_loss', on: {student: [a, b], teacher: [a, b]}, teachers: [wide]}"


def pair_of_taps(of_student, of_teacher, loss=FSP):
    taps = "taps={a: stage1, b: %s}"
    models = [f"student.{CNN.replace('width: 8', 'width: 4')}", f"teachers.wide.{CNN}"]
    return *models, f"student.{taps % of_student}", f"teachers.wide.{taps % of_teacher}", loss


def test_two_taps_may_be_compared():
    assert checked(*pair_of_taps("stage2", "stage2")).num_classes == 10
    assert checked(*pair_of_taps("stage3", "stage2")).num_classes == 10, "heights and widths are each feature's own"
    (said,) = refusal(*pair_of_taps("pool", "stage2")).splitlines()
    assert said == (
        "losses.fsp: the loss needs equal numbers of channels, got student tap 'student.taps.b' (16,) and teacher tap "
        "'teachers.wide.taps.b' (16, 4, 4); tap other modules or give losses.fsp.connector"
    )


def test_a_loss_is_called_with_as_many_tensors_as_taps():
    one = refusal(*pair_of_taps("stage2", "stage2", FSP.replace("[a, b]", "a")))
    assert one == "losses.fsp.kwargs: fsp_loss() needs 'teacher_early', 'teacher_late'"
    two = refusal(*pair_of_taps("stage2", "stage2", FSP.replace("fsp_loss", "hint_loss")))
    assert two == "losses.fsp.kwargs: hint_loss() takes 2 positional arguments, Collegium gives it 4"


def test_taps_that_a_phi_cannot_take_are_named():
    text = refusal(*pair_of_taps("pool", "pool"))
    assert text == (
        "losses.fsp: flow(a, b, pooling='max') failed for 'wide': late: expected shape (N, C, H, W), "
        "got (2, 32); tap a convolutional feature"
    )
    attention = FSP.replace("[a, b]", "b").replace("fsp_loss", "attention_transfer_loss")
    assert "features: expected shape (N, C, H, W), got (2, 32)" in refusal(*pair_of_taps("pool", "pool", attention))


@pytest.mark.parametrize("place", ["teacher", "student"])
def test_a_loss_without_phi_has_nothing_to_reduce(place):
    assert refusal(f"losses.soft.reduce={place}") == (
        "losses.soft.reduce: actors.losses:kd_loss declares no phi, so there is nothing to reduce; leave it out, "
        "or give a top_k to a loss on logits"
    )


@pytest.mark.parametrize("rule", ["confidence", "entropy"])
def test_a_rule_with_weights_of_its_own_takes_none(rule):
    text = refusal(f"losses.soft.ensemble={{target: {rule}, kwargs: {{weights: {{wide: 2}}}}}}")
    assert text == f"losses.soft.ensemble.kwargs.weights: actors.ensemble:{rule} has weights of its own; leave them out"


@pytest.mark.parametrize("rule", ENSEMBLE_RULES)
def test_every_rule_that_fits_passes(rule):
    kwargs = "{routes: {wide: [0, 1], deep: [2]}}" if rule == "label_routing" else "{}"
    assert checked(f"losses.soft.ensemble={{target: {rule}, kwargs: {kwargs}}}").num_classes == 10


def test_a_package_that_is_not_here_is_left_to_the_cluster():
    findings = checked("teachers.wide.model.target=not_installed_anywhere:net")
    assert findings.elsewhere == ("teachers.wide.model.target: not_installed_anywhere:net",)
    assert findings.steps_per_epoch["wide"] == 14, "what can be known is known"


def test_what_a_teacher_is_given_goes_into_its_spec():
    assert checked().teachers["wide"].input_shape == (1, 8, 8)
    assert checked("teachers.wide.input.channels=3", "teachers.wide.model.kwargs.channels=3").teachers[
        "wide"
    ].input_shape == (3, 8, 8)


TINY = "teachers.wide.model={target: 'actors.models:tiny_cnn', kwargs: {width: 8}}"


def test_channels_last_is_for_models_with_channels():
    assert checked(TINY, "teachers.wide.taps={}", "teachers.wide.channels_last=true").teachers["wide"].channels_last
    assert refusal("teachers.wide.channels_last=true") == (
        "teachers.wide.channels_last: no weight of the model has channels, so nothing would be faster; leave it out"
    )
    flat = [f"data.{view}={HERE}:as_rows" for view in ("views", "evaluation_view")]
    assert refusal(*flat, "teachers.wide.channels_last=true") == (
        "teachers.wide.channels_last: it is for images, the model is given rows of shape (64,); leave it out"
    )


def test_a_backend_to_compile_with_is_known():
    assert checked("teachers.wide.compile=aot_eager").teachers["wide"].compile == "aot_eager"
    text = refusal("teachers.wide.compile=inductr")
    hint = "teachers.wide.compile: torch.compile has no backend 'inductr'; did you mean 'inductor'?; there is "
    assert text.startswith(hint) and {"cudagraphs", "inductor"} < set(text.removeprefix(hint).split(", "))
    assistant = "assistants.half={model: {target: 'actors.models:mlp', kwargs: {width: 8}}, compile: fast}"
    assert refusal(assistant).startswith("assistants.half.compile: torch.compile has no backend 'fast'; there is ")
