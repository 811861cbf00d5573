"""A teacher on a GPU: staging changes nothing, and a row's answer does not depend on its neighbours there either."""

import pytest
import torch

from actors.digests import row_digests
from actors.knowledge import TeacherRequest
from actors.staging import Staging, carrier
from actors.teacher import Teacher
from tests.unit.digits_setup import NETS as EVERY_NET
from tests.unit.digits_setup import images, save_teacher

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NETS = {name: EVERY_NET[name] for name in ("mlp", "small_resnet", "small_vit", "grey to colour, resized")}
PRECISIONS = ("fp32", "bf16", "fp16")


def gpu() -> torch.device:
    return torch.device("cuda")


def ask(teacher: Teacher, pixels):
    inputs = {"image": pixels}
    with torch.no_grad():
        answer = teacher.answer(inputs, TeacherRequest(teacher.spec.name, True, ("tap",)), row_digests(inputs))
    return answer.to(torch.device("cpu"))


def assert_same_alone_and_in_company(teacher: Teacher) -> None:
    pixels = images(300)
    whole = ask(teacher, pixels)
    assert len(whole.features["tap"].flatten(1).unique(dim=0)) > 250, "the rows differ at all"
    for rows in ([77], range(8), range(3, 20), range(28, 61), torch.randperm(300)[:128].tolist()):
        some = ask(teacher, pixels[list(rows)])
        for name, tensor in some.tensors.items():
            assert tensor.dtype == torch.float32 and tensor.is_contiguous()
            assert torch.equal(tensor, whole.tensors[name][list(rows)]), f"{name} of {len(rows)} rows"


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("net", NETS)
def test_a_rows_answer_is_the_same_alone_and_in_any_company(tmp_path, net, precision, channels_last):
    spec = save_teacher(tmp_path, spec=NETS[net], precision=precision, channels_last=channels_last)
    assert_same_alone_and_in_company(Teacher(spec, gpu()))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_compiled_too(tmp_path, precision):
    spec = save_teacher(tmp_path, spec=NETS["small_resnet"], precision=precision, compile="inductor")
    assert_same_alone_and_in_company(Teacher(spec, gpu()))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("net", NETS)
def test_the_gpu_nearly_agrees_with_the_cpu(tmp_path, net, precision):
    spec = save_teacher(tmp_path, spec=NETS[net])
    there = ask(Teacher(save_teacher(tmp_path, spec=NETS[net], precision=precision), gpu()), images(70))
    # TF32, which convolutions may use in fp32, has the 10 bits of fp16; bf16 has 7.
    tolerance = 0.1 if precision == "bf16" else 0.02
    for name, tensor in ask(Teacher(spec), images(70)).tensors.items():
        torch.testing.assert_close(there.tensors[name], tensor, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("net", NETS)
def test_answers_are_equal_with_and_without_staging(tmp_path, net, monkeypatch):
    spec = save_teacher(tmp_path, spec=NETS[net])
    staged = Teacher(spec, gpu())
    monkeypatch.setattr("actors.teacher.carrier", lambda device: unstaged)
    plain = Teacher(spec, gpu())
    for rows in (1, 32, 33, 300):
        first, other = (ask(teacher, images(rows)) for teacher in (staged, plain))
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in first.tensors.items())


def unstaged(chunks):
    for chunk in chunks:
        yield {name: tensor.to(gpu()) for name, tensor in chunk.items()}


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_chunks_arrive_whole_and_in_order_however_busy_the_gpu_is(count):
    chunks = [{"image": torch.full((256, 3, 64, 64), number % 256, dtype=torch.uint8)} for number in range(count)]
    busy, sums = torch.rand(4096, 4096, device=gpu()), []
    for number, chunk in enumerate(carrier(gpu())(iter(chunks))):
        busy = (busy @ busy).clamp(max=1)
        assert chunk["image"].is_cuda and chunk["image"].shape == (256, 3, 64, 64)
        sums.append((chunk["image"].long() - number % 256).abs().sum())
    assert len(sums) == count and not any(int(total) for total in sums)


def test_the_next_chunk_travels_while_the_present_one_is_computed():
    taken = []

    def chunks():
        for number in range(3):
            taken.append(number)
            yield {"image": torch.zeros(4)}

    arriving = Staging(gpu())(chunks())
    next(arriving)
    assert taken == [0, 1]
    next(arriving)
    assert taken == [0, 1, 2]


def test_two_teachers_share_a_gpu(tmp_path):
    specs = [save_teacher(tmp_path, name, NETS["small_resnet"], seed=seed) for seed, name in enumerate("ab")]
    together = [Teacher(spec, gpu()) for spec in specs]
    alone = [ask(Teacher(spec, gpu()), images(64)) for spec in specs]
    for teacher, wanted in zip(together, alone, strict=True):
        assert torch.equal(ask(teacher, images(64)).logits, wanted.logits)
