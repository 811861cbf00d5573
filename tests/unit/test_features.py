import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from actors.features import _BUFFERS, TapError, TappedModel

torch.set_num_threads(1)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.factor


class Rendezvous(nn.Module):
    """Passes its input on once all parties stand here, so that calls are sure to overlap."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(parties, timeout=10)

    def forward(self, inputs: Tensor) -> Tensor:
        self.barrier.wait()
        return inputs


class ByFunction(nn.Module):
    """A module whose forward is `function(self, inputs)`; `parts` are its modules."""

    def __init__(self, function: Callable, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self, inputs)


class NaiveTappedModel:
    """What `TappedModel` must not be: its hook writes into the object."""

    def __init__(self, model: nn.Module, taps: dict[str, str]) -> None:
        self.model, self.features = model, {}
        for name, path in taps.items():
            model.get_submodule(path).register_forward_hook(self.hook(name))

    def hook(self, name: str) -> Callable:
        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            self.features[name] = output

        return keep

    def __call__(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.model(inputs)
        return logits, dict(self.features)


def doubled_then_tripled() -> nn.Sequential:
    return nn.Sequential(Scale(2.0), Scale(3.0))


def test_gives_logits_and_features():
    logits, features = TappedModel(doubled_then_tripled(), {"middle": "0"})(torch.tensor([[1.0, 5.0]]))
    assert logits.tolist() == [[6.0, 30.0]]
    assert {name: tap.tolist() for name, tap in features.items()} == {"middle": [[2.0, 10.0]]}


def test_gives_the_taps_asked_for():
    tapped = TappedModel(doubled_then_tripled(), {"first": "0", "last": "1"})
    inputs = torch.ones(1, 1)
    assert set(tapped(inputs)[1]) == {"first", "last"}
    assert set(tapped(inputs, ["last"])[1]) == {"last"}
    assert tapped(inputs, ())[1] == {}


def test_dotted_paths_and_shared_modules():
    shared = Scale(2.0)
    model = nn.Sequential(nn.Sequential(shared, Scale(3.0)), shared)
    features = TappedModel(model, {"inner": "0.1", "shared": "0.0", "same": "1"})(torch.ones(1))[1]
    assert features["inner"].item() == 6
    assert features["shared"].item() == features["same"].item() == 12  # the last call of a shared module wins


@pytest.mark.parametrize(
    "output",
    [lambda x: (x, None), lambda x: [x], lambda x: {"states": x, "weights": None}],
    ids=["tuple", "list", "dict"],
)
def test_the_first_tensor_of_a_container_is_the_feature(output):
    model = ByFunction(lambda self, x: self.part(x) and x * 5, part=ByFunction(lambda self, x: output(x * 2)))
    logits, features = TappedModel(model, {"a": "part"})(torch.ones(1))
    assert (logits.item(), features["a"].item()) == (5, 2)


def test_the_first_tensor_of_the_output_is_the_logits():
    model = ByFunction(lambda self, x: {"logits": x * 2, "hidden": x})
    assert TappedModel(model, {})(torch.ones(1))[0].item() == 2


def test_a_later_inplace_layer_does_not_change_a_feature():
    model = nn.Sequential(Scale(2.0), nn.ReLU(inplace=True))
    inputs = torch.tensor([-1.0, 1.0])
    features = TappedModel(model, {"before": "0"})(inputs)[1]
    assert features["before"].tolist() == [-2.0, 2.0]


def test_gradients_flow_through_a_feature():
    model = nn.Sequential(Scale(2.0), nn.ReLU(inplace=True))
    TappedModel(model, {"before": "0"})(torch.tensor([-4.0]))[1]["before"].sum().backward()
    assert model[0].factor.grad.item() == -4.0


def features_in_threads(tapped: Callable, num_threads: int, repeats: int) -> list[tuple[float, float, float]]:
    """(input, feature, logits) of concurrent calls of a model that doubles, waits, and triples."""

    def call(number: int) -> tuple[float, float, float]:
        logits, features = tapped(torch.tensor(float(number)))
        return number, features["middle"].item(), logits.item()

    with ThreadPoolExecutor(num_threads) as threads:
        return list(threads.map(call, range(num_threads * repeats)))


def overlapping_model(num_threads: int) -> nn.Module:
    return nn.Sequential(Scale(2.0), Rendezvous(num_threads), Scale(3.0), Rendezvous(num_threads))


def test_concurrent_calls_equal_sequential_ones():
    tapped = TappedModel(overlapping_model(4), {"middle": "0"})
    for number, feature, logits in features_in_threads(tapped, 4, repeats=200):
        assert (feature, logits) == (2 * number, 6 * number)


def test_the_concurrency_test_can_fail():
    tapped = NaiveTappedModel(overlapping_model(4), {"middle": "0"})
    wrong = [f != 2 * n for n, f, _ in features_in_threads(tapped, 4, repeats=200)]
    assert sum(wrong) >= 600  # of the four that meet, three at least see another's feature


def test_calls_with_other_taps_run_at_once():
    tapped = TappedModel(overlapping_model(2), {"early": "0", "late": "2"})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(tapped, torch.tensor(1.0), ["early"])
        second = threads.submit(tapped, torch.tensor(10.0), ["late"])
    assert {k: v.item() for k, v in first.result()[1].items()} == {"early": 2}
    assert {k: v.item() for k, v in second.result()[1].items()} == {"late": 60}


def test_a_tapped_model_within_a_tapped_model():
    inner = TappedModel(doubled_then_tripled(), {"a": "0"})
    model = ByFunction(lambda self, x: self.inner(x)[1]["a"] * 7, inner=inner)
    logits, features = TappedModel(model, {"deep": "inner.model.1"})(torch.ones(1))
    assert (logits.item(), features["deep"].item()) == (14, 6)


def test_a_failed_call_leaves_nothing_behind():
    failing = ByFunction(lambda self, x: self.part(x) + torch.ones(3), part=Scale(2.0))
    tapped = TappedModel(failing, {"a": "part"})
    with pytest.raises(RuntimeError):
        tapped(torch.ones(2))
    assert _BUFFERS.get() == ()
    assert tapped(torch.ones(3))[1]["a"].tolist() == [2, 2, 2]


def test_export_and_parameters_are_the_bare_models():
    model = doubled_then_tripled()
    tapped = TappedModel(model, {"a": "0"})
    assert list(tapped.model.state_dict()) == ["0.factor", "1.factor"]
    assert [id(p) for p in tapped.parameters()] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_has_taps_of_its_own(copied):
    original = TappedModel(doubled_then_tripled(), {"a": "0"})
    twin = copied(original)
    with torch.no_grad():
        twin.model[0].factor.fill_(100.0)
    assert twin(torch.ones(1))[1]["a"].item() == 100
    assert original(torch.ones(1))[1]["a"].item() == 2
    twin.close()
    assert original(torch.ones(1))[1]["a"].item() == 2


def test_close_takes_the_hooks_off():
    model = doubled_then_tripled()
    tapped = TappedModel(model, {"a": "0"}, "student.taps")
    assert len(model[0]._forward_hooks) == 1
    tapped.close()
    assert len(model[0]._forward_hooks) == 0
    assert tapped(torch.ones(1))[0].item() == 6
    with pytest.raises(ValueError, match=r"student\.taps: no tap is called 'a'; there are none"):
        tapped(torch.ones(1), ["a"])


def test_no_buffer_where_no_tap_is_asked_for():
    outputs = []
    part = ByFunction(lambda self, x: outputs.append(x) or "not a tensor")  # an asked tap would refuse this
    TappedModel(ByFunction(lambda self, x: self.part(x) and x, part=part), {"a": "part"})(torch.ones(1), ())
    assert len(outputs) == 1


def message(model: nn.Module, taps: dict[str, str], *asked: str) -> str:
    with pytest.raises(TapError) as error:
        TappedModel(model, taps, "teachers.resnet.taps")(torch.ones(1), asked or None)
    return str(error.value)


def test_errors_name_the_key_and_the_way_out():
    model = nn.Sequential()
    for name in ("layer1", "layer2", "head"):
        model.add_module(name, Scale(1.0))
    assert message(model, {"middle": "layer9"}) == (
        "teachers.resnet.taps.middle: the model has no module 'layer9'; did you mean 'layer1', 'layer2'?"
    )
    assert message(model, {"middle": "xyz"}) == (
        "teachers.resnet.taps.middle: the model has no module 'xyz'; its parts are 'layer1', 'layer2', 'head'"
    )
    assert message(model, {"middle": ""}) == (
        "teachers.resnet.taps.middle: '' is the whole model, whose output are the logits; name a module within it"
    )
    assert "'logits' is the name of the model's output" in message(model, {"logits": "head"})
    assert message(model, {"a": "head"}, "b") == "teachers.resnet.taps: no tap is called 'b'; there are 'a'"


def test_refuses_a_module_that_did_not_run():
    model = ByFunction(lambda self, x: x * self.part.factor, part=Scale(2.0))
    assert message(model, {"a": "part"}) == (
        "teachers.resnet.taps.a: module 'part' did not run in the forward; tap a module that is called"
    )


@pytest.mark.parametrize("output, kind", [(None, "NoneType"), ((), "tuple"), (("x", 1), "tuple"), ({}, "dict")])
def test_refuses_what_is_not_a_tensor(output, kind):
    model = ByFunction(lambda self, x: (self.part(x), x)[1], part=ByFunction(lambda self, x: output))
    assert message(model, {"a": "part"}) == (
        "teachers.resnet.taps.a: the output of module 'part' must be a tensor, or begin with one, "
        f"got {kind}; tap another module"
    )
    assert message(ByFunction(lambda self, x: output), {}) == (
        "teachers.resnet.taps: the output of the model must be a tensor, or begin with one, "
        f"got {kind}; tap another module"
    )


def test_features_lie_in_one_memory_order():
    channels_last = nn.Sequential(nn.Conv2d(2, 4, 3)).to(memory_format=torch.channels_last)
    _, features = TappedModel(channels_last, {"conv": "0"})(torch.rand(3, 2, 5, 5))
    assert features["conv"].is_contiguous()
