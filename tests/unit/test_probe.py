import time

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from actors.probe import probe_shapes, reaches

torch.set_num_threads(1)

RESNET_TAPS = {"middle": "layer2", "embedding": "avgpool"}


class WithAuxiliaryHead(nn.Module):
    """Gives more classes while it trains."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([inputs, inputs], dim=1) if self.training else inputs


def images(*shape: int) -> Tensor:
    return torch.empty((1, *shape), device="meta")


def shapes(model: nn.Module, *shape: int, **taps: str):
    return probe_shapes(model, taps, images(*shape), "teachers.mine")


class Counting(nn.Module):
    """In every forward changes a buffer in place, another by assignment, and caches a tensor."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.zeros(2))
        self.register_buffer("assigned", torch.zeros(2))
        self.cache = torch.zeros(1)
        self.branches = branches
        self.norm = nn.BatchNorm1d(3)
        self.frozen = nn.Dropout().eval()

    def forward(self, inputs: Tensor) -> Tensor:
        self.in_place += 1
        self.assigned = self.assigned + 1
        self.cache = inputs + torch.rand(3)
        if self.branches and inputs.sum().item() > 1:
            raise AssertionError("the probe's rows are zeros")
        return self.frozen(self.norm(self.cache))


class Explodes(nn.Module):
    """Puts out 4 * 10^14 bytes a row."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.expand(-1, 10**14).clone()


def test_resnet18():
    model = torchvision.models.resnet18(num_classes=10)
    found = probe_shapes(model, RESNET_TAPS, images(3, 64, 64), "teachers.resnet")
    assert found == {"logits": (10,), "middle": (128, 8, 8), "embedding": (512, 1, 1)}


def test_mobilenet_v3_small():
    found = shapes(torchvision.models.mobilenet_v3_small(), 3, 32, 32, stem="features.0", pool="avgpool")
    assert found == {"logits": (1000,), "stem": (16, 16, 16), "pool": (576, 1, 1)}


def test_vit_b_16():
    with torch.device("meta"):
        model = torchvision.models.vit_b_16()
    found = shapes(
        model,
        3,
        224,
        224,
        block="encoder.layers.encoder_layer_3",
        attention="encoder.layers.encoder_layer_0.self_attention",
    )
    assert found == {"logits": (1000,), "block": (197, 768), "attention": (197, 768)}


def test_a_timm_model():
    timm = pytest.importorskip("timm")
    found = shapes(timm.create_model("resnet10t", num_classes=7), 3, 32, 32, middle="layer2")
    assert found == {"logits": (7,), "middle": (128, 4, 4)}


def test_the_type_of_the_input():
    found = probe_shapes(nn.Embedding(100, 8), {}, torch.zeros((5, 12), dtype=torch.int64), "student")
    assert found == {"logits": (12, 8)}


def test_computes_nothing():
    start = time.perf_counter()
    assert shapes(Explodes(), 1) == {"logits": (10**14,)}
    assert time.perf_counter() - start < 5


def test_evaluation_mode_counts():
    model = nn.Sequential(WithAuxiliaryHead())
    assert shapes(model, 3, head="0") == {"logits": (3,), "head": (3,)}
    assert model[0].training


@pytest.mark.parametrize("branches", [False, True], ids=["faked", "real"])
def test_leaves_the_model_as_it_was(branches):
    model = Counting(branches)
    before = {name: (id(tensor), tensor.tolist()) for name, tensor in model.state_dict(keep_vars=True).items()}
    torch.manual_seed(0)
    assert shapes(model, 3, inner="norm") == {"logits": (3,), "inner": (3,)}
    drawn = torch.rand(1)
    assert {n: (id(t), t.tolist()) for n, t in model.state_dict(keep_vars=True).items()} == before
    assert not isinstance(model.cache, FakeTensor)
    assert (model.training, model.norm.training, model.frozen.training) == (True, True, False)
    assert not model.norm._forward_hooks
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert not isinstance(model(torch.zeros(2, 3)), FakeTensor)


def test_falls_back_to_real_rows_for_torchscript():
    script = torch.jit.script(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)))
    assert shapes(script, 3) == {"logits": (5,)}
    assert script.training


def message(model: nn.Module, *shape: int, **taps: str) -> str:
    with pytest.raises(ValueError) as error:
        shapes(model, *shape, **taps)
    return str(error.value)


def test_an_input_that_the_model_refuses():
    text = message(nn.Conv2d(1, 8, kernel_size=3), 3, 28, 28)
    assert text.startswith("teachers.mine.model: its forward failed on input (3, 28, 28) of torch.float32: ")
    assert "expected input[2, 3, 28, 28] to have 1 channels" in text
    assert text.endswith(" set teachers.mine.input.size or teachers.mine.input.channels")


def test_a_tap_that_the_model_does_not_have():
    assert message(nn.Sequential(nn.Flatten()), 3, a="1") == (
        "teachers.mine.taps.a: the model has no module '1'; its parts are '0'"
    )


def test_a_feature_without_rows_first():
    assert message(nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 3))), 3, flat="0") == (
        "teachers.mine.taps.flat: the feature must have the rows as its first dimension, "
        "got (6,) for 2 rows; tap another module, or wrap this one"
    )


def test_reaches_the_parameters_of_the_graph():
    first, second, aside = nn.Linear(2, 3), nn.Linear(3, 1), nn.Linear(2, 1)
    inputs = torch.ones(4, 2)
    loss = second(first(inputs).relu()).mean()
    assert reaches(loss, first.parameters())
    assert reaches(loss, second.parameters())
    assert not reaches(loss, aside.parameters())
    assert not reaches(second(first(inputs).detach()).mean(), first.parameters())
    assert not reaches(loss.detach(), first.parameters())
    assert not reaches(loss, [])
    assert reaches(first.bias, first.parameters())


def test_frozen_parameters_are_not_reached():
    frozen, head = nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 1)
    loss = head(frozen(torch.ones(4, 2))).mean()
    assert not reaches(loss, frozen.parameters())
    assert not reaches(frozen.bias, frozen.parameters())
    assert reaches(loss, head.parameters())


def test_reaches_in_a_fake_graph():
    used, aside = nn.Linear(2, 3), nn.Linear(2, 3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss = used(torch.ones(4, 2)).logsumexp(dim=1).mean()
    assert isinstance(loss, FakeTensor)
    assert reaches(loss, used.parameters())
    assert not reaches(loss, aside.parameters())


def test_a_deep_and_wide_graph_is_walked_once():
    weight = torch.ones((), requires_grad=True)
    left, right = weight * 1, weight * 2
    for _ in range(2000):
        left, right = left + right, left - right  # 2^2000 paths
    assert reaches(left, [weight])
    assert not reaches(left, [torch.ones((), requires_grad=True)])
