"""What ExperimentConfig refuses, and in which words: below each override the line that it earns."""

import pickle
import re
from pathlib import Path

import pytest

from orchestrator import document
from orchestrator.config import ExperimentConfig
from orchestrator.problems import ConfigError

SAMPLE = Path(__file__).parent / "experiment.yaml"

IN_A_SECTION = """
losses.soft.wieght=1
  losses.soft.wieght: unknown key; did you mean 'weight'?
losses.attention.on.studnet=x
  losses.attention.on.studnet: unknown key; did you mean 'student'?
losses.soft.weight.epoch=3
  losses.soft.weight.epoch: unknown key; did you mean 'epochs'?
student.scheduler.evry=step
  student.scheduler.evry: unknown key; did you mean 'every'?
assistants.mid.epcohs=3
  assistants.mid.epcohs: unknown key; did you mean 'epochs'?
teachers.resnet.train.epcohs=3
  teachers.resnet.train.epcohs: unknown key; did you mean 'epochs'?
losses.soft.on={student: [a, b], teacher: c}
  losses.soft.on: expected as many taps of student and teacher, got ('a', 'b') and 'c'
losses.soft.on={student: [a, b, c], teacher: [a, b]}
  losses.soft.on.student: expected a tap, or a list of two different ones, got ['a', 'b', 'c']
losses.soft.on={student: [a, b], teacher: [a, a]}
  losses.soft.on.teacher: expected a tap, or a list of two different ones, got ['a', 'a']
losses.soft.on={student: a, teacher: b, tap: c}
  losses.soft.on.tap: unknown key; known here: student, teacher
data.batch_size=abc
  data.batch_size: expected a positive integer, got 'abc'
data.batch_size=0
  data.batch_size: expected a positive integer, got 0
data.batch_size=true
  data.batch_size: expected a positive integer, got true
data.slices.student=1.5
  data.slices.student: expected a positive integer, got 1.5
data.slices.a b=3
  data.slices.a b: expected a name without dots and spaces, got 'a b'
data.num_views=frehs
  data.num_views: expected a positive integer or `fresh`, got 'frehs'
student.epochs=
  student.epochs: expected a positive integer, got null
teachers.resnet.replicas=0
  teachers.resnet.replicas: expected a positive integer or {min: a number, max: a number}, got 0
teachers.resnet.replicas={min: 3, max: 2}
  teachers.resnet.replicas: expected min <= max, got min 3 and max 2
teachers.resnet.replicas={most: 2, max: 2}
  teachers.resnet.replicas.most: unknown key; known here: min, max
student.window=-1
  student.window: expected an integer of at least 0 or `auto`, got -1
student.precision=fp23
  student.precision: expected 'fp32' or 'bf16', got 'fp23'
student.alone=on
  student.alone: expected true or false, got 'on'
student=[1]
  student: expected a mapping, got [1]
source=remote
  source: expected 'pool' or 'local', got 'remote'
name=a/b
  name: expected a name of letters, digits, '.', '_' and '-', got 'a/b'
name=..
  name: expected a name of letters, digits, '.', '_' and '-', got '..'
storage=hdfs://b/c
  storage: expected a folder, s3://bucket/... or gs://bucket/..., got hdfs:...
losses.hard.on=label
  losses.hard.on: expected labels, logits or {student: a tap, teacher: a tap}, got 'label'
losses.soft.weight=x
  losses.soft.weight: expected a number or {ramp: [from, to], epochs: n}, got 'x'
losses.soft.weight=.nan
  losses.soft.weight: expected a number or {ramp: [from, to], epochs: n}, got nan
losses.soft.weight.ramp=[1]
  losses.soft.weight.ramp: expected a list of two numbers, got [1]
losses.soft.teachers=resnet
  losses.soft.teachers: expected a list of teachers' names, got 'resnet'
losses.soft.teachers=[]
  losses.soft.teachers: expected a list of teachers' names, got []
losses.soft.ensemble=mean_logit
  losses.soft.ensemble: expected mean_losses, mean_logits, mean_probabilities, confidence, entropy,
  random, label_routing, learned or 'module:attribute', got 'mean_logit'; did you mean 'mean_logits'?
student.ema=1.0
  student.ema: expected a number between 0 and 1, got 1.0
student.optimizer=torch.optim.SGD
  student.optimizer: expected 'module:attribute', got 'torch.optim.SGD'; did you mean
  'torch.optim:SGD'?
data.train.target=a:b:c
  data.train.target: expected 'module:attribute', got 'a:b:c'
data.train.kwargs={1: 2}
  data.train.kwargs.1: expected a string, got 1
answer_timeout_s=0.001
  answer_timeout_s: expected 1 to 1000000 seconds, got 0.001
teachers.resnet.threads=100000
  teachers.resnet.threads: expected 1 to 1024 threads, got 100000
teachers.resnet.chunk=1000000000000
  teachers.resnet.chunk: expected 1 to 1048576 rows or `auto`, got 1000000000000
teachers.resnet.resources.num_gpus=1.5
  teachers.resnet.resources.num_gpus: expected a fraction of one GPU or whole GPUs, got 1.5
teachers.resnet.class_map=[1, 1]
  teachers.resnet.class_map: expected distinct entries, got 1 twice
teachers.resnet.class_map.1=-1
  teachers.resnet.class_map: expected a list of class numbers of at least 0, got [3, -1, 0, 2]
teachers.resnet.input.mean=x
  teachers.resnet.input.mean: expected a number or a list of numbers, got 'x'
teachers.resnet.input.mean=[1, 2]
  teachers.resnet.input.mean: expected 1 or 3 numbers (channels: 3), got 2
teachers.resnet.input.std=0
  teachers.resnet.input.std: expected positive numbers, got 0.0
teachers={}
  teachers: expected at least one entry, got {}
losses={}
  losses: expected at least one entry, got {}
teachers.resnet.checkpoint=a
  teachers.resnet: expected exactly one of checkpoint and train, got both
teachers.vit.checkpoint=
  teachers.vit: expected exactly one of checkpoint and train, got neither
teachers.a/b={model: 'x:y', checkpoint: w}
  teachers.a/b: expected a name of letters, digits, _ and -, got 'a/b'
teachers.student={model: 'x:y', checkpoint: w}
  teachers.student: the name 'student' is taken: reports use it for something else; choose another
"""

BETWEEN_SECTIONS = """
data.validation=validaton
  data.validation: data.slices has no slice 'validaton'; did you mean 'validation'?
student.data=studnet
  student.data.labelled: data.slices has no slice 'studnet'; did you mean 'student'?
student.data.unlabelled=x
  student.data.unlabelled: data.slices has no slice 'x'; there is teachers, student, validation
student.data.unlabelled=validation
  student.data.unlabelled: 'validation' is the slice for validation (data.validation); train on
  another
assistants.mid.data=validation
  assistants.mid.data.labelled: 'validation' is the slice for validation (data.validation); train on
  another
teachers.resnet.train.slice=teacher
  teachers.resnet.train.slice: data.slices has no slice 'teacher'; did you mean 'teachers'?
data.batch_size=127
  data.batch_size: expected a multiple of student.num_workers (2), got 127; nearest: 126 and 128
assistants.big.num_workers=3
  data.batch_size: expected a multiple of assistants.big.num_workers (3), got 128; nearest: 126 and
  129
teachers.resnet.train.batch_size=2
teachers.resnet.train.num_workers=3
  teachers.resnet.train.batch_size: expected a multiple of teachers.resnet.train.num_workers (3), got
  2; nearest: 3
losses.soft.teachers=[restnet]
  losses.soft.teachers: no teacher 'restnet'; did you mean 'resnet'? (above student)
losses.soft.teachers=[mid]
  losses.soft.teachers: for assistants.mid, which has no losses of its own: no teacher 'mid'; there is
  resnet, vit, big (above assistants.mid)
losses.hard.teachers=[resnet]
  losses.hard.teachers: a loss on labels listens to no teacher and would ignore this; leave it out
losses.hard.ensemble=mean_losses
  losses.hard.ensemble: a loss on labels listens to no teacher and would ignore this; leave it out
losses.hard.connector=a:b
  losses.hard.connector: a loss on labels listens to no teacher and would ignore this; leave it out
losses.hard.top_k=3
  losses.hard.top_k: a loss on labels listens to no teacher and would ignore this; leave it out
losses.soft.top_k=0
  losses.soft.top_k: expected a positive integer, got 0
losses.attention.top_k=3
  losses.attention.top_k: the largest are heard of logits alone, this loss is on taps; leave it out
losses.hard.rest=bucket
  losses.hard.rest: a loss on labels listens to no teacher and would ignore this; leave it out
losses.soft.rest=bucket
  losses.soft.rest: without top_k all logits are heard, and this would be ignored; give a top_k or
  leave it out
losses.soft.rest=spread
  losses.soft.rest: without top_k all logits are heard, and this would be ignored; give a top_k or
  leave it out
losses.attention.rest=ignore
  losses.attention.rest: the largest are heard of logits alone, this loss is on taps; leave it out
losses.soft.top_k=3
losses.soft.rest=buckets
  losses.soft.rest: expected 'spread', 'bucket' or 'ignore', got 'buckets'
losses.soft.top_k=1
losses.soft.rest=ignore
  losses.soft.top_k: expected 2 at least with rest: ignore, got 1, of which a softmax is always 1;
  hear more
losses.hard.reduce=teacher
  losses.hard.reduce: a loss on labels listens to no teacher and would ignore this; leave it out
losses.attention.reduce=stuednt
  losses.attention.reduce: expected 'teacher' or 'student', got 'stuednt'
losses.soft.connector=a:b
  losses.soft.connector: a connector joins taps and would be ignored on logits; leave it out
losses.attention.on.teacher=stage2
  losses.attention.on.teacher: the taps of 'resnet' have no tap 'stage2'; there is middle, embedding
losses.attention.on={student: [middle, lte], teacher: [middle, late]}
  losses.attention.on.student: student.taps has no tap 'lte'; there is middle
student.taps={midle: x}
  losses.attention.on.student: student.taps has no tap 'middle'; did you mean 'midle'?
assistants.mid.taps={}
  losses.attention.on.student: for assistants.mid, which has no losses of its own: assistants.mid.taps
  has no tap 'middle'; there is none
losses.soft.ensemble={target: mean_probabilities, kwargs: {weights: {resnt: 2}}}
  losses.soft.ensemble.kwargs.weights: no teacher 'resnt'; did you mean 'resnet'? (of this loss)
losses={hard: {loss: 'a:b', on: labels}}
  losses: no loss listens to a teacher; give at least one on logits or on taps, with a weight
source=local
  teachers.resnet.replicas: expected 1 with source: local, where teachers run in the student's
  process, got 2; set source: pool
source=local
teachers.resnet.replicas=1
teachers.resnet.resources={}
teachers.vit.may_be_dropped=true
  teachers.vit.may_be_dropped: only a pool loses teachers (source: local); leave it out
teachers.resnet.may_be_dropped=true
losses.attention.weight=0
  losses.soft.teachers: 'resnet' may be dropped, and then this loss would hear nobody; give it another
  teacher, or leave may_be_dropped of 'resnet' out
teachers.vit.may_be_dropped=true
teachers.vit.actor=duo
teachers.resnet.actor=duo
teachers.resnet.replicas=1
teachers.resnet.resources={}
  teachers.vit.may_be_dropped: it shares the actor 'duo' with teachers.resnet; give both the same
  may_be_dropped
assistants.vit={model: 'x:y', losses: {soft: {loss: 'a:b', on: logits}}}
  assistants.vit: teachers has a 'vit' too; give one of them another name
"""

IN_AN_OVERRIDE = """
student.epochs.x=1
  override student.epochs.x: student.epochs is 20, which has no 'x' in it; override student.epochs as
  a whole
teachers.resnet.class_map.9=1
  override teachers.resnet.class_map.9: teachers.resnet.class_map is [3, 1, 0, 2], which has no '9' in
  it; override teachers.resnet.class_map as a whole
student.epochs
  override 'student.epochs': expected key.path=value, as in student.epochs=3
a..b=1
  override 'a..b=1': expected key.path=value, as in student.epochs=3
a={
  override 'a={', line 1: expected the node content, but found '<stream end>'
"""


def cases(table: str):
    """Overrides, one a line, then the line expected, indented and wrapped."""
    for overrides, expected in re.findall(r"((?:\S.*\n)+)((?: .*\n)+)", table):
        yield pytest.param(overrides.splitlines(), " ".join(expected.split()), id=overrides)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.from_yaml(SAMPLE, overrides)
    return list(caught.value.problems)


@pytest.mark.parametrize(("overrides", "expected"), [*cases(IN_A_SECTION), *cases(IN_AN_OVERRIDE)])
def test_what_a_section_refuses(overrides, expected):
    assert problems(*overrides) == [expected]


@pytest.mark.parametrize(("overrides", "expected"), [*cases(BETWEEN_SECTIONS)])
def test_what_sections_must_agree_on(overrides, expected):
    assert expected in problems(*overrides)


def test_all_problems_come_at_once_with_the_file_name():
    with pytest.raises(ValueError) as caught:
        ExperimentConfig.from_yaml(SAMPLE, ["data.batch_size=x", "student.bogus=1", "losses.soft.on=maybe"])
    first, *rest = str(caught.value).splitlines()
    assert first == f"{SAMPLE}: 3 problems"
    assert [line.split(":")[0] for line in rest] == ["data.batch_size", "student.bogus", "losses.soft.on"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_broken_student_is_said_once_although_assistants_inherit_from_it():
    wrong = document.load(SAMPLE.read_text(), "sample")
    del wrong["student"]["optimizer"], wrong["data"]["test"]
    with pytest.raises(ConfigError) as caught:
        ExperimentConfig.from_document(wrong)
    assert caught.value.problems == (
        "data.test: is missing; it has no default",
        "student.optimizer: is missing; it has no default",
    )


def test_an_override_of_a_name_that_is_not_there_does_not_begin_a_new_one():
    for override, text in {
        "losses.sotf.weight=3": "no loss 'sotf'; did you mean 'soft'?",
        "teachers.renset.replicas=2": "no teacher 'renset'; did you mean 'resnet'?",
        "assistants.bgi.epochs=2": "no assistant 'bgi'; did you mean 'big'?",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(f"override {override!r}: {text}")):
            ExperimentConfig.from_yaml(SAMPLE, [override])
    anew = ["losses.more={loss: 'a:b', on: logits}", "losses.more.weight=3"]
    assert ExperimentConfig.from_yaml(SAMPLE, anew).losses["more"].weight == 3


def test_the_paths_in_errors_are_those_of_overrides():
    right = {
        "losses.soft.weight.epochs": 3,
        "losses.attention.on.student": "middle",
        "teachers.resnet.train.epochs": 9,
    }
    paths = [line.split(":")[0] for line in problems(*(f"{path}=[]" for path in right))]
    assert set(paths) == set(right)
    ExperimentConfig.from_yaml(SAMPLE, [f"{path}={right[path]}" for path in paths])
