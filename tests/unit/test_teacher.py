"""A teacher: frozen, and a row's answer never depends on its neighbours."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn

from actors.data import Rows
from actors.knowledge import TeacherRequest, row_digests
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, InputSpec, Resources
from actors.teacher import Teacher, intra_op_threads
from actors.weights import read_weights, weight_hash
from tests.unit.digits_setup import batches, digits, images, model, save_teacher

NETS = {
    "mlp": model(width=48, depth=2, taps={"tap": "pool"}),
    "tiny_cnn": model("actors.models:tiny_cnn", width=8, taps={"tap": "stage2"}),
    "small_resnet": model("actors.models:small_resnet", width=8, taps={"tap": "stage2"}),
    "mobile_cnn": model("actors.models:mobile_cnn", width=8, taps={"tap": "pool"}),
    "small_vit": model("actors.models:small_vit", size=8, width=32, depth=1, taps={"tap": "blocks"}),
    "grey to colour, resized": model(
        "actors.models:plain_cnn",
        channels=3,
        width=8,
        taps={"tap": "stage3"},
        input=InputSpec(size=12, channels=3, mean=(0.1, 0.2, 0.3), std=(0.5,)),
    ),
}
THREADS_SEEN: list[int] = []


class Thrifty(nn.Module):
    """Notes with how many threads it runs; fails on request."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.fails = fails

    def forward(self, inputs):
        THREADS_SEEN.append(torch.get_num_threads())
        if self.fails:
            raise RuntimeError("out of breath")
        return self.head(inputs.flatten(1))


def selective(dataset, sample_id, generator):
    """Three channels; in memory they come last for every second sample."""
    image = torch.from_numpy(dataset[sample_id][0]).expand(3, 8, 8).numpy().copy()
    return (image.transpose(1, 2, 0).copy().transpose(2, 0, 1) if sample_id % 2 else image), 0


def ask(teacher: Teacher, pixels, taps=("tap",), logits=True):
    inputs = {"image": pixels}
    with torch.no_grad():
        return teacher.answer(inputs, TeacherRequest(teacher.spec.name, logits, tuple(taps)), row_digests(inputs))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("scaled", [False, True], ids=["bytes", "floats"])
def test_a_rows_answer_is_the_same_alone_and_in_any_company(tmp_path, net, scaled):
    teacher = Teacher(save_teacher(tmp_path, spec=NETS[net]))
    pixels = images(128).float() / 255 if scaled else images(128)
    whole = ask(teacher, pixels)
    assert len(set(whole.logits[:, 0].tolist())) > 100, "the rows differ at all"
    for rows in ([77], range(8), range(3, 20), range(28, 61), range(100), torch.randperm(128).tolist()):
        some = ask(teacher, pixels[list(rows)])
        assert torch.equal(some.logits, whole.logits[list(rows)]), f"{len(rows)} rows"
        assert torch.equal(some.features["tap"], whole.features["tap"][list(rows)]), f"{len(rows)} rows"


@pytest.mark.parametrize("chunk", [1, 5, 32])
def test_a_chunk_may_have_any_size(tmp_path, chunk):
    teacher = Teacher(save_teacher(tmp_path, spec=NETS["tiny_cnn"], chunk=chunk))
    whole = ask(teacher, images(13))
    assert whole.logits.shape == (13, 10) and whole.features["tap"].shape == (13, 16, 2, 2)
    assert torch.equal(ask(teacher, images(13)[11:]).logits, whole.logits[11:])


@pytest.mark.parametrize("net", ["small_resnet", "tiny_cnn"])
def test_a_rows_answer_does_not_depend_on_how_its_neighbours_lie_in_memory(tmp_path, net):
    spec = model(f"actors.models:{net}", channels=3, width=8, input=InputSpec(channels=3))
    teacher = Teacher(save_teacher(tmp_path, spec=spec))
    rows = Rows(digits(), ImportSpec("tests.unit.test_teacher:selective"), 0)

    def answer(*ids):
        inputs, _ = rows.build(torch.tensor(ids).numpy(), torch.zeros(len(ids), dtype=torch.int32).numpy())
        return ask(teacher, inputs["image"], taps=()).logits

    together = answer(1, 3, 2)
    assert torch.equal(answer(1, 3), together[:2]) and torch.equal(answer(2), together[2:])


def test_it_is_frozen_and_in_eval_mode(tmp_path):
    spec = model("tests.unit.digits_setup:dropout_mlp")
    teacher = Teacher(save_teacher(tmp_path, spec=spec))
    first, again = ask(teacher, images(8), taps=()), ask(teacher, images(8), taps=())
    assert torch.equal(first.logits, again.logits)
    weights = read_weights(teacher.spec.weights, "w")
    assert teacher.version == weight_hash(weights) == first.version, "no running mean has moved"
    assert ask(Teacher(save_teacher(tmp_path, "other", spec, seed=1)), images(1), ()).version != first.version


def test_autograd_is_the_callers_business_but_its_weights_take_no_gradient(tmp_path):
    spec = save_teacher(tmp_path)
    pixels = torch.rand(3, 1, 8, 8, requires_grad=True)
    answer = Teacher(spec).answer({"image": pixels}, TeacherRequest("wide"), row_digests({"image": images(3)}))
    assert answer.logits is not None
    answer.logits.sum().backward()
    assert pixels.grad is not None and bool((pixels.grad != 0).any())
    frozen = Teacher(spec).answer({"image": images(3)}, TeacherRequest("wide"), row_digests({"image": images(3)}))
    assert frozen.logits is not None and not frozen.logits.requires_grad
    (batch,) = batches(1)
    (known,) = LocalTeachers.load([spec]).ask(batch, (TeacherRequest("wide"),)).result()
    assert known.logits is not None and not known.logits.requires_grad and known.digests is batch.digests


def test_only_what_is_asked_for_is_answered(tmp_path):
    teacher = Teacher(save_teacher(tmp_path, spec=model(width=24, depth=2, taps={"a": "stem", "b": "pool"})))
    assert (ask(teacher, images(2), taps=("b",), logits=False)).logits is None
    assert list(ask(teacher, images(2), taps=("b",)).features) == ["b"]
    assert ask(teacher, images(2), taps=()).features == {}


def test_logits_come_in_the_order_of_the_datas_classes(tmp_path):
    spec = model(num_classes=3, width=8, depth=1)
    plain = ask(Teacher(save_teacher(tmp_path, spec=spec)), images(4), ()).logits
    # Output 0 is class 2, output 1 is class 0, output 2 is class 5: in the data's order 0, 2, 5.
    subset = ask(Teacher(save_teacher(tmp_path, spec=spec, class_map=(2, 0, 5))), images(4), ()).logits
    assert torch.equal(subset, plain[:, [1, 0, 2]])
    turned = ask(Teacher(save_teacher(tmp_path, spec=spec, class_map=(1, 2, 0))), images(4), ()).logits
    assert torch.equal(turned, plain[:, [2, 0, 1]])
    same = ask(Teacher(save_teacher(tmp_path, spec=spec, class_map=(0, 1, 2))), images(4), ()).logits
    assert torch.equal(same, plain)


def test_weights_that_do_not_fit_name_the_teachers_checkpoint(tmp_path):
    spec = save_teacher(tmp_path, spec=model(width=8))
    misfit = save_teacher(tmp_path, "other", spec=model(width=9))
    with pytest.raises(
        ValueError, match=r"^teachers\.wide\.checkpoint: the weights do not fit .*\(9, 64\) in the file"
    ):
        Teacher(replace(spec, weights=misfit.weights))


@pytest.mark.parametrize("fails", [False, True])
def test_the_number_of_threads_is_the_specs_within_and_restored_after(tmp_path, fails):
    spec = save_teacher(tmp_path, spec=model("tests.unit.test_teacher:Thrifty"), resources=Resources(num_cpus=2))
    teacher = Teacher(replace(spec, model=model("tests.unit.test_teacher:Thrifty", fails=fails)))
    THREADS_SEEN.clear()
    before = torch.get_num_threads()
    try:
        ask(teacher, images(40), ())
    except RuntimeError:
        assert fails
    assert set(THREADS_SEEN) == {2} and torch.get_num_threads() == before == 1
    assert Resources(num_cpus=0.5).threads == 1


def test_threads_that_answer_at_once_do_not_disturb_each_other(tmp_path):
    teacher = Teacher(save_teacher(tmp_path, spec=NETS["small_resnet"]))
    wanted = ask(teacher, images(64)).logits
    with intra_op_threads(2), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: ask(teacher, images(64)).logits, range(8)))
    assert all(torch.equal(answer, wanted) for answer in answers)
