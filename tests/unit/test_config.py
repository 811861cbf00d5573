"""ExperimentConfig: what it reads, what it fills in, and the specs it makes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from actors.specs import ImportSpec, InputSpec, LossSpec, Resources, TapPair, WeightSpec
from orchestrator import document
from orchestrator.config import ExperimentConfig
from orchestrator.problems import ConfigError

SAMPLE = Path(__file__).parent / "experiment.yaml"


def raw():
    return document.load(SAMPLE.read_text(), "sample")


def test_a_round_trip_gives_an_equal_config(tmp_path):
    tricky = "{a: '1e-3', b: 'on', c: '010', d: '2026-01-01', e: '0o17', f: 1e-9, g: -.inf, h: ['~', null, 'é']}"
    config = ExperimentConfig.from_yaml(SAMPLE, [f"student.model={{target: 'a.b:c.d', kwargs: {tricky}}}"])
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml())
    assert ExperimentConfig.from_yaml(again) == config
    assert ExperimentConfig.from_yaml(again).student.model.kwargs["a"] == "1e-3"
    assert "on" in yaml.safe_load(config.to_yaml())["losses"]["hard"], "readers of YAML 1.1 see the key too"


def test_to_yaml_shows_every_default():
    written = document.load(ExperimentConfig.from_yaml(SAMPLE).to_yaml(), "written")
    assert (written["seed"], written["storage"], written["source"]) == (0, "runs", "pool")
    assert written["answer_timeout_s"] == 300 and written["data"]["validation"] == "validation"
    assert written["teachers"]["resnet"]["train"]["batch_size"] == 128
    assert written["teachers"]["resnet"]["train"]["seed"] == 5
    assert written["teachers"]["resnet"]["chunk"] == 32
    assert written["student"]["alone"] is True and written["student"]["window"] == "auto"
    assert written["losses"]["attention"]["ensemble"] == {
        "target": "actors.ensemble:mean_losses",
        "kwargs": {},
    }


def test_defaults_of_the_least_config():
    least = raw()
    least["teachers"] = {"vit": least["teachers"]["vit"]}
    del least["assistants"], least["data"]["num_views"], least["data"]["batch_size"], least["data"]["views"]
    least["losses"] = {"soft": {"loss": "actors.losses:kd_loss", "on": "logits"}}
    config = ExperimentConfig.from_document(least)
    assert (config.assistants, config.data.num_views, config.data.batch_size) == ({}, "fresh", 128)
    assert config.data.spec().num_views is None
    assert config.teachers_of("student") == ("vit",)


def test_an_assistant_inherits_from_the_student_what_it_leaves_out():
    config = ExperimentConfig.from_yaml(SAMPLE)
    big, mid = config.assistants["big"], config.assistants["mid"]
    assert (big.epochs, mid.epochs) == (5, 20)
    assert big.scheduler is None and mid.scheduler == config.student.scheduler
    assert (big.clip_norm, mid.clip_norm) == (None, 1.0)
    assert big.optimizer == mid.optimizer == config.student.optimizer
    assert big.num_workers == 2 and big.data == config.student.data and big.input.mean == (0.286,)


def test_a_rung_is_taught_by_the_one_above():
    config = ExperimentConfig.from_yaml(SAMPLE)
    assert config.teachers_of("big") == ("resnet", "vit")
    assert config.teachers_of("mid") == ("big",)
    assert config.teachers_of("student") == ("mid",)
    assert list(config.losses_of("big")) == ["soft"]
    assert config.losses_of("mid") is config.losses


def test_specs():
    config = ExperimentConfig.from_yaml(SAMPLE)
    teacher = config.teachers["resnet"].teacher_spec("resnet", "w.safetensors")
    assert (teacher.name, teacher.weights, teacher.class_map) == ("resnet", "w.safetensors", (3, 1, 0, 2))
    assert teacher.resources == Resources(1, 0.5, {"tpu": 1}) and (teacher.replicas, teacher.chunk) == (2, 32)
    assert teacher.model.input == InputSpec("image", 28, 3, (0.286,), (0.353,))
    assert teacher.model.taps == {"middle": "stage2", "embedding": "pool"}
    data = config.data.spec()
    assert data.views == ImportSpec("actors.views:crop_and_flip", {"padding": 2})
    assert (data.seed, data.num_views, data.slices["validation"]) == (5, 4, 2000)
    recipe = config.student.recipe(config.data.batch_size, config.seed)
    assert (recipe.epochs, recipe.batch_size, recipe.seed, recipe.scheduler_every) == (20, 128, 0, "step")
    assert recipe.scheduler == ImportSpec("torch.optim.lr_scheduler:OneCycleLR", {"max_lr": 0.1})
    training = config.teachers["resnet"].train
    assert training is not None
    assert training.recipe_spec().optimizer == ImportSpec("torch.optim:Adam", {"lr": 0.001})
    assert (training.recipe_spec().seed, training.recipe_spec().batch_size) == (5, 128)
    assert training.loss_spec() == LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss"), "labels")


def test_how_a_teacher_computes():
    def spec(*overrides):
        config = ExperimentConfig.from_yaml(SAMPLE, [f"teachers.vit.{text}" for text in overrides])
        return config.teachers["vit"].teacher_spec("vit", "")

    plain = spec()
    assert (plain.chunk, plain.threads) == (32, 1)
    assert (plain.precision, plain.channels_last, plain.compile) == ("fp32", False, None)
    fast = spec("precision=fp16", "channels_last=true", "compile=inductor", "threads=3")
    assert (fast.precision, fast.channels_last, fast.compile, fast.threads) == ("fp16", True, "inductor", 3)
    assert [spec(f"resources.num_cpus={cpus}").threads for cpus in (0.5, 1, 2.7, 4)] == [1, 1, 2, 4]
    assert spec("resources.num_cpus=4", "threads=1").threads == 1
    assert spec("chunk=7", "resources.num_gpus=1").chunk == 7
    assert [spec("chunk=auto", f"resources.num_gpus={gpus}").chunk for gpus in (0, 0.25, 1)] == [32, 256, 256]


def test_an_assistant_is_trained_in_one_precision_and_teaches_in_another():
    config = ExperimentConfig.from_yaml(SAMPLE, ["student.precision=bf16", "assistants.big.teaching_precision=fp16"])
    big, mid = config.assistants["big"], config.assistants["mid"]
    assert big.precision == mid.precision == "bf16", "the student's"
    assert (big.teacher_spec("big", "").precision, mid.teacher_spec("mid", "").precision) == ("fp16", "fp32")


def test_specs_of_losses():
    specs = {n: loss.spec(n, ("a", "b")) for n, loss in ExperimentConfig.from_yaml(SAMPLE).losses.items()}
    assert specs["hard"].teachers == () and specs["hard"].weight == WeightSpec(0.1, 0.1, 0)
    assert specs["soft"].weight == WeightSpec(0, 1, 20) and specs["soft"].teachers == ("resnet",)
    assert specs["soft"].ensemble == ImportSpec("actors.ensemble:mean_probabilities")
    assert specs["attention"].on == TapPair("middle", "middle")
    assert specs["attention"].ensemble == ImportSpec("actors.ensemble:mean_losses")
    unnamed = ExperimentConfig.from_yaml(SAMPLE).assistants["big"].losses
    assert unnamed is not None and unnamed["soft"].spec("soft", ("a", "b")).teachers == ("a", "b")


def test_a_loss_and_its_kwargs_have_one_path_however_they_are_written():
    nested, flat = {"loss": {"target": "a:b", "kwargs": {"t": 1}}}, {"loss": "a:b", "kwargs": {"t": 1}}
    first, second = (
        ExperimentConfig.from_document({**raw(), "losses": {"soft": {**entry, "on": "logits"}}})
        for entry in (nested, flat)
    )
    assert first == second
    below = {"big": {**raw()["assistants"]["big"], "losses": {"soft": {**nested, "on": "logits"}}}}
    of_assistant = ExperimentConfig.from_document({**raw(), "assistants": below}).assistants["big"].losses
    assert of_assistant is not None and of_assistant["soft"].kwargs == {"t": 1}
    changed = ExperimentConfig.from_yaml(SAMPLE, ["losses.soft.kwargs.temperature=9", "losses.hard.kwargs.a=1"])
    assert changed.losses["soft"].kwargs == {"temperature": 9} and changed.losses["hard"].kwargs == {"a": 1}
    assert changed.losses["soft"].spec("soft", ()).loss == ImportSpec("actors.losses:kd_loss", {"temperature": 9})


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("losses.soft.loss={target: 'a:b', kwarg: {}}", "losses.soft.loss: no key 'kwarg'; did you mean 'kwargs'?"),
        ("losses.soft.loss={target: 'a:b', kwargs: {}}", "losses.soft.loss.kwargs: losses.soft.kwargs is there too"),
        ("losses.soft.loss={kwargs: {}}", "losses.soft.loss.kwargs: losses.soft.kwargs is there too"),
        ("losses.soft.loss={}", "losses.soft.loss: expected a string, got null"),
        ("losses.soft.loss=kd_loss", "losses.soft.loss: expected 'module:attribute', got 'kd_loss'"),
        ("assistants.big.losses.soft.loss={t: 1}", "assistants.big.losses.soft.loss: no key 't'"),
    ],
)
def test_what_is_wrong_with_a_loss_is_named(override, expected):
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.from_yaml(SAMPLE, [override])
    assert expected in str(caught.value)


def test_label_smoothing_reaches_the_teachers_loss():
    train = ExperimentConfig.from_yaml(SAMPLE, ["teachers.resnet.train.label_smoothing=0.1"]).teachers["resnet"].train
    assert train is not None and train.loss_spec().loss.kwargs == {"label_smoothing": 0.1}


def test_overrides():
    def read(*overrides):
        return ExperimentConfig.from_yaml(SAMPLE, overrides)

    assert read("student.epochs=3", "student.epochs=4").student.epochs == 4
    assert read("student.optimizer.kwargs.lr=1e-3").student.optimizer.kwargs == {"lr": 0.001, "momentum": 0.9}
    assert read("data.train.kwargs.note=a=b").data.train.kwargs["note"] == "a=b"
    assert read("losses.soft.weight=2").losses["soft"].weight == 2
    assert read("teachers.resnet.class_map.0=7").teachers["resnet"].class_map == (7, 1, 0, 2)
    assert read("assistants.big.scheduler.target=a:b").assistants["big"].scheduler.target == "a:b"


def test_the_json_schema_accepts_what_the_config_accepts():
    jsonschema = pytest.importorskip("jsonschema")
    schema = jsonschema.Draft202012Validator(ExperimentConfig.json_schema())
    schema.check_schema(schema.schema)
    schema.validate(raw())
    schema.validate(document.load(ExperimentConfig.from_yaml(SAMPLE).to_yaml(), "written"))
    schema.validate(document.override(raw(), ["student.data=student", "data.num_views=fresh"]))
    for wrong in (
        "student.epohcs=3",
        "losses.soft.on=label",
        "data.batch_size=x",
        "losses.soft.weight.ramp=3",
    ):
        assert not schema.is_valid(document.override(raw(), [wrong])), wrong


def test_a_config_does_not_change():
    config = ExperimentConfig.from_yaml(SAMPLE)
    with pytest.raises(ValueError, match="frozen"):
        config.student.epochs = 3


def test_reading_a_config_imports_neither_torch_nor_ray():
    code = (
        "import sys; from orchestrator.config import ExperimentConfig as E; import orchestrator.targets\n"
        f"E.from_yaml({str(SAMPLE)!r}).to_yaml(); E.json_schema()\n"
        "print(sorted({'torch', 'torchvision', 'ray', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
