"""What a rung depends on: what is the same is not trained twice, what is not, is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.datasets import Digits
from actors.fingerprints import code_fingerprint, content_hash, dataset_fingerprint, ids_hash, targets_in
from actors.specs import ImportSpec, Resources, WeightSpec
from orchestrator.identity import rung_key
from tests.unit.digits_setup import DATA, HARD, SOFT, digits, model, save_teacher, student

CROP = ImportSpec("actors.views:crop_and_flip", {"padding": 2})


@pytest.fixture
def spec(tmp_path):
    return student([save_teacher(tmp_path)], [HARD, SOFT])


def key(spec) -> str:
    return key_with(spec, digits())


def key_with(spec, dataset) -> str:
    return rung_key(spec, dataset, dataset_fingerprint(dataset, spec.data))


def data(spec, **changes):
    return replace(spec, data=replace(DATA, **changes))


def recipe(spec, **changes):
    return replace(spec, recipe=replace(spec.recipe, **changes))


def teacher(spec, **changes):
    return replace(spec, teachers=(replace(spec.teachers[0], **changes),))


def soft(spec, **changes):
    return replace(spec, losses=(HARD, replace(SOFT, **changes)))


OTHERS = {
    "seed of the data": lambda s: data(s, seed=1),
    "size of a slice": lambda s: data(s, slices={**DATA.slices, "student": 97}),
    "another slice": lambda s: replace(s, labelled="more"),
    "unlabelled rows": lambda s: replace(s, unlabelled="more"),
    "views": lambda s: data(s, views=CROP),
    "number of views": lambda s: data(s, num_views=3),
    "width": lambda s: replace(s, model=model(width=13, depth=1)),
    "normalising": lambda s: replace(s, model=replace(s.model, input=replace(s.model.input, mean=(0.5,)))),
    "epochs": lambda s: recipe(s, epochs=3),
    "seed": lambda s: recipe(s, seed=4),
    "learning rate": lambda s: recipe(s, optimizer=ImportSpec("torch.optim:Adam", {"lr": 0.1})),
    "batch size": lambda s: recipe(s, batch_size=48),
    "clipping": lambda s: recipe(s, clip_norm=1.0),
    "precision": lambda s: recipe(s, precision="bf16"),
    "scheduler": lambda s: recipe(s, scheduler=ImportSpec("torch.optim.lr_scheduler:CosineAnnealingLR")),
    "temperature": lambda s: soft(s, loss=ImportSpec(SOFT.loss.target, {"temperature": 3})),
    "weight": lambda s: soft(s, weight=WeightSpec(1, 2, 2)),
    "ensemble rule": lambda s: soft(s, ensemble=ImportSpec("actors.ensemble:mean_logits")),
    "no soft loss": lambda s: replace(s, losses=(HARD,)),
    "workers": lambda s: replace(s, num_workers=2),
    "threads": lambda s: replace(s, resources=Resources(num_cpus=2)),
    "chunk": lambda s: teacher(s, chunk=16),
    "the teacher's threads": lambda s: teacher(s, threads=2),
    "the teacher's precision": lambda s: teacher(s, precision="bf16"),
    "the teacher's half precision": lambda s: teacher(s, precision="fp16"),
    "the teacher's memory order": lambda s: teacher(s, channels_last=True),
    "the teacher compiled": lambda s: teacher(s, compile="inductor"),
    "the teacher on a GPU": lambda s: teacher(s, resources=Resources(num_gpus=0.25)),
    "class map": lambda s: teacher(s, class_map=tuple(range(9, -1, -1))),
    "the teacher's input": lambda s: teacher(s, model=replace(s.model, input=replace(s.model.input, std=(2.0,)))),
}
SAME = {
    "name": lambda s: replace(s, name="another"),
    "replicas": lambda s: teacher(s, replicas=5),
    "window": lambda s: replace(s, window=7),
    "how often it is written": lambda s: recipe(s, checkpoint_every_steps=3),
    "an unused slice at the end": lambda s: data(s, slices={**DATA.slices, "unused": 9}),
    "test set": lambda s: data(s, test=ImportSpec("actors.datasets:Digits", {"train": True})),
    "whether the teacher may be dropped": lambda s: teacher(s, may_be_dropped=True),
    "the teacher's cores": lambda s: teacher(s, resources=Resources(num_cpus=3)),
    "shapes, which follow from the model": lambda s: teacher(s, shapes={"logits": (10,), "x": (3,)}, input_shape=(4,)),
}


def test_the_key_is_short_and_the_same_again(spec):
    assert key(spec) == key(spec) and len(key(spec)) == 16


@pytest.mark.parametrize("change", OTHERS)
def test_what_makes_another_student_makes_another_key(spec, change):
    assert key(OTHERS[change](spec)) != key(spec)


@pytest.mark.parametrize("change", SAME)
def test_what_makes_no_other_student_keeps_the_key(spec, change):
    assert key(SAME[change](spec)) == key(spec)


def test_all_other_keys_differ_from_each_other(spec):
    assert len({key(change(spec)) for change in OTHERS.values()}) == len(OTHERS)


def test_the_teachers_weights_count_and_their_place_does_not(tmp_path, spec):
    weights = Path(spec.teachers[0].weights).read_bytes()
    elsewhere = tmp_path / "elsewhere.safetensors"
    elsewhere.write_bytes(weights)
    assert key(teacher(spec, weights=str(elsewhere))) == key(spec)
    elsewhere.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert key(teacher(spec, weights=str(elsewhere))) != key(spec)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_other_data_makes_another_key(spec, part):
    for row in (0, 1, 501):
        other = Digits()
        assert key_with(spec, other) == key(spec), "the same content elsewhere in memory"
        getattr(other, part)[row] ^= 1
        assert key_with(spec, other) != key(spec)


def test_the_name_of_a_teacher_does_not_count(spec):
    def named(name):
        return replace(spec, name=name, losses=(replace(HARD, section=f"teachers.{name}.train"),), teachers=())

    assert key(named("one")) == key(named("other"))


def test_a_teacher_that_is_trained_here_has_a_key_of_its_own(spec):
    assert key(replace(spec, teachers=(), losses=(HARD,))) != key(spec)


def test_edited_code_is_another_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "edited_loss.py"
    file.write_text("def loss(student, teacher):\n    return (student - teacher).mean()\n")
    before = code_fingerprint(["edited_loss:loss"])
    file.write_text("def loss(student, teacher):\n    return (student + teacher).mean()\n")
    assert code_fingerprint(["edited_loss:loss"]) != before


def test_what_a_target_imports_from_beside_it_is_its_source_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_loss.py").write_text("from my_sums import loss\n")
    (tmp_path / "my_sums.py").write_text("def loss(student, teacher):\n    return (student - teacher).mean()\n")
    before = code_fingerprint(["my_loss:loss"])
    (tmp_path / "my_sums.py").write_text("def loss(student, teacher):\n    return (student + teacher).mean()\n")
    assert code_fingerprint(["my_loss:loss"]) != before


def test_what_is_installed_counts_by_its_version():
    found = code_fingerprint(["torchvision.models:resnet18"])
    assert found["torchvision"] and found["torch"] == torch.__version__ and len(found["actors"]) == 64


def test_every_target_is_found_however_deep():
    content = {
        "model": {"target": "a:b", "kwargs": {"head": {"target": "c:d"}}},
        "losses": [{"loss": {"target": "e:f"}}],
    }
    assert sorted(targets_in(content)) == ["a:b", "c:d", "e:f"]
    assert targets_in({"target": 3, "kwargs": {}}) == []


@pytest.mark.parametrize("target", ["dog", "", "no_such_module:x", "actors:no_such_thing"])
def test_a_kwarg_that_happens_to_be_called_target_does_no_harm(spec, target):
    head = replace(spec, model=replace(spec.model, model=ImportSpec(spec.model.model.target, {"target": target})))
    assert len(key(head)) == 16


def test_hashes_of_content():
    assert (
        content_hash({"a": 1, "b": [2, 3]})
        == content_hash({"b": [2, 3], "a": 1})
        != content_hash({"a": 1, "b": [3, 2]})
    )
    assert content_hash({"a": (1, 2)}) == content_hash({"a": [1, 2]})
    ids = np.arange(6)
    assert ids_hash(ids) == ids_hash(np.arange(12)[::2] // 2) != ids_hash(ids[::-1])
