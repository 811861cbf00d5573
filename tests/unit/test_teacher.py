"""A teacher: frozen, and a row's answer never depends on its neighbours."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo import register_backend

from actors.data import Rows
from actors.digests import row_digests
from actors.knowledge import TeacherRequest
from actors.sources import LocalTeachers
from actors.specs import ImportSpec, InputSpec, Resources
from actors.teacher import Teacher, intra_op_threads
from actors.weights import read_weights, weight_hash
from tests.unit.digits_setup import NETS, batches, digits, images, model, save_teacher

WAYS = {
    "bf16": {"precision": "bf16"},
    "channels_last": {"channels_last": True},
    "compiled": {"compile": "aot_eager"},
    "all three": {"precision": "bf16", "channels_last": True, "compile": "aot_eager"},
}
THREADS_SEEN: list[int] = []
INPUTS_SEEN: list[torch.Tensor] = []
OUTPUTS_SEEN: list[torch.Tensor] = []
GRAPHS_SEEN: list[torch.fx.GraphModule] = []


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


class Watched(nn.Module):
    """Keeps what it was given and what it made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3)

    def forward(self, inputs):
        INPUTS_SEEN.append(inputs)
        OUTPUTS_SEEN.append(self.stem(inputs).amax(dim=(2, 3)))
        return OUTPUTS_SEEN[-1]


class Overwriting(nn.Module):
    """The layer after its tap works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.first, self.relu, self.head = nn.Linear(64, 12), nn.ReLU(inplace=True), nn.Linear(12, 10)

    def forward(self, inputs):
        return self.head(self.relu(self.first(self.flat(inputs))))


@register_backend(name="counting")
def counting(graph, inputs):
    """Computes as without it."""
    GRAPHS_SEEN.append(graph)
    return graph


@register_backend(name="broken")
def broken(graph, inputs):
    raise RuntimeError("no compiler\nto be found")


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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("net", NETS)
def test_a_rows_answer_depends_on_its_neighbours_no_more_at_full_speed(tmp_path, net, way):
    teacher = Teacher(save_teacher(tmp_path, spec=NETS[net], **WAYS[way]))
    whole = ask(teacher, images(128))
    assert len(whole.features["tap"].flatten(1).unique(dim=0)) > 100, "the rows differ at all"
    for rows in ([77], range(8), range(3, 20), torch.randperm(128).tolist()):
        some = ask(teacher, images(128)[list(rows)])
        assert torch.equal(some.logits, whole.logits[list(rows)]), f"{len(rows)} rows"
        assert torch.equal(some.features["tap"], whole.features["tap"][list(rows)]), f"{len(rows)} rows"


@pytest.mark.parametrize("way", WAYS)
def test_at_full_speed_an_answer_is_nearly_the_same_in_float32_and_one_memory_order(tmp_path, way):
    spec = save_teacher(tmp_path, spec=NETS["small_resnet"])
    plain, fast = (ask(Teacher(one), images(40)) for one in (spec, replace(spec, **WAYS[way])))
    # Half precision has 8 bits: values of up to 2 may be off by 2 / 2**8 in each of a few layers.
    tolerance = 0.05 if "precision" in WAYS[way] else 1e-5
    for name, tensor in fast.tensors.items():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        torch.testing.assert_close(tensor, plain.tensors[name], atol=tolerance, rtol=0)
        assert way == "channels_last" or torch.equal(tensor, plain.tensors[name]) == (way == "compiled")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_model_computes_as_it_is_told(tmp_path, precision, dtype):
    spec = model("tests.unit.test_teacher:Watched", input=InputSpec(channels=3))
    teacher = Teacher(save_teacher(tmp_path, spec=spec, precision=precision, channels_last=True))
    with torch.autocast("cpu", torch.bfloat16):
        answer = ask(teacher, images(3), ())
    assert OUTPUTS_SEEN[-1].dtype == dtype and answer.logits.dtype == torch.float32
    assert INPUTS_SEEN[-1].is_contiguous(memory_format=torch.channels_last)
    assert teacher._model.model.stem.weight.is_contiguous(memory_format=torch.channels_last)


def test_weights_lie_as_the_models_code_has_them(tmp_path):
    teacher = Teacher(save_teacher(tmp_path, spec=NETS["mobile_cnn"]))
    weights = [weight for weight in teacher._model.model.parameters() if weight.ndim == 4]
    assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_one_chunk_is_not_copied(tmp_path):
    spec = model("tests.unit.test_teacher:Watched", input=InputSpec(channels=3))
    teacher = Teacher(save_teacher(tmp_path, spec=spec))
    for rows in (32, 5):
        answer = ask(teacher, images(rows), ())
        assert answer.logits.shape == (rows, 10) and answer.logits.data_ptr() == OUTPUTS_SEEN[-1].data_ptr()


def test_a_teacher_compiles_once_when_it_is_loaded(tmp_path):
    spec = model(width=24, depth=2, taps={"a": "stem", "b": "pool"})
    GRAPHS_SEEN.clear()
    teacher = Teacher(save_teacher(tmp_path, spec=spec, compile="counting"))
    assert len(GRAPHS_SEEN) == 1
    both = ask(teacher, images(40), taps=("a", "b"))
    for taps in ((), ("a",), ("b",), ("b", "a")):
        answer = ask(teacher, images(7), taps)
        assert torch.equal(answer.logits, both.logits[:7]) and set(answer.features) == set(taps)
        assert all(torch.equal(answer.features[tap], both.features[tap][:7]) for tap in taps)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: ask(teacher, images(40), ("b",)), range(8)))
    assert all(torch.equal(answer.features["b"], both.features["b"]) for answer in answers)
    assert len(GRAPHS_SEEN) == 1


def test_a_compiled_feature_is_what_its_module_gave(tmp_path):
    spec = save_teacher(tmp_path, spec=model("tests.unit.test_teacher:Overwriting", taps={"tap": "first"}))
    plain, compiled = (ask(Teacher(replace(spec, compile=backend)), images(9)) for backend in (None, "aot_eager"))
    assert bool((plain.features["tap"] < 0).any()), "the layer after it would show"
    assert torch.equal(compiled.features["tap"], plain.features["tap"])


def test_every_one_of_many_teachers_in_a_process_stays_compiled(tmp_path):
    GRAPHS_SEEN.clear()
    spec = save_teacher(tmp_path, compile="counting")
    for count in range(1, 11):
        Teacher(spec)
        assert len(GRAPHS_SEEN) == count


def test_a_backend_that_cannot_run_here_ends_the_loading(tmp_path):
    with pytest.raises(ValueError) as refusal:
        Teacher(save_teacher(tmp_path, compile="broken"))
    text = str(refusal.value)
    assert text == (
        "teachers.wide.compile: 'broken' cannot compile it here: BackendCompilerFailed: backend='broken' raised: "
        "RuntimeError: no compiler; install what it needs (inductor: a C++ compiler, on a GPU Triton), or leave it out"
    )


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
    assert known.logits is not None and not known.logits.requires_grad


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
    spec = save_teacher(tmp_path, spec=model("tests.unit.test_teacher:Thrifty"), threads=2)
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
