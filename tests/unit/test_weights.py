"""Weights: read without running anything, fitted with clear errors, hashed to the bit."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from actors.weights import fit_weights, read_weights, weight_hash, weights_as_bytes

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")


def net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Payload:
    """Creates a file as soon as it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self):
        return Path.touch, (Path(self.file),)


def test_an_export_is_read_back_to_the_bit(tmp_path):
    model = net()
    model(torch.randn(8, 4))
    file = tmp_path / "w.safetensors"
    file.write_bytes(weights_as_bytes(model))
    found = read_weights(str(file), "w")
    assert same(found, model.state_dict()) and weight_hash(found) == weight_hash(model.state_dict())
    other = net()
    fit_weights(other, found, "w")
    assert weights_as_bytes(other) == weights_as_bytes(model)


def test_tied_weights_can_be_exported(tmp_path):
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    file = tmp_path / "w.safetensors"
    file.write_bytes(weights_as_bytes(nn.Sequential(first, second)))
    assert read_weights(str(file), "w").keys() == {"0.weight", "0.bias", "1.weight", "1.bias"}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    ],
    ids=["bare", "state_dict", "model_state_dict", "model", "wrapped and prefixed", "prefixed"],
)
def test_checkpoints_of_torch_in_their_usual_forms(tmp_path, wrap, zipped):
    state, file = net().state_dict(), tmp_path / "w.pt"
    torch.save(wrap(state), file, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(str(file), "w"), state)


def test_a_part_that_is_called_module_keeps_its_name(tmp_path):
    model = nn.Module()
    model.module, model.head = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    fit_weights(model, read_weights(str(tmp_path / "w.pt"), "w"), "w")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_missing_file_is_refused(tmp_path, name):
    path = str(tmp_path / name)
    with pytest.raises(
        ValueError, match=rf"^teachers\.a\.checkpoint: expected a file of weights, found none at '{path}"
    ):
        read_weights(path, "teachers.a.checkpoint")
    with pytest.raises(ValueError, match="expected a file of weights"):
        read_weights(str(tmp_path), "a folder is none")


def test_a_torn_file_is_refused_wherever_it_breaks_off(tmp_path):
    state = net().state_dict()
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    for file in list(tmp_path.iterdir()):
        content, torn = file.read_bytes(), tmp_path / f"torn{file.suffix}"
        for length in range(0, len(content), len(content) // 40):
            torn.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"^teachers\.a\.checkpoint: "):
                read_weights(str(torn), "teachers.a.checkpoint")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world, this is text\n", b"<html>", b"\x80\x04.", pickle.dumps([1, 2]), pickle.dumps({"a": 1})],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_of_something_else_is_refused(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^here: .*(w\.pt|w\.safetensors)"):
        read_weights(str(tmp_path / name), "here")


@pytest.mark.parametrize("loaded", [[torch.zeros(2)], {"weight": 3}, {"state_dict": {"a": [1]}}, torch.zeros(2)])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path, loaded):
    torch.save(loaded, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"^here: expected a state dict \(name -> tensor\) in '.*w\.pt'; save model"):
        read_weights(str(tmp_path / "w.pt"), "here")


@pytest.mark.parametrize("how", ["zip", "old", "plain pickle"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_nothing_of_a_pickle_is_run(tmp_path, how, name):
    trap, file = tmp_path / "it-ran", tmp_path / name
    content = {"state_dict": {"weight": torch.zeros(2), "bias": Payload(trap)}}
    if how == "plain pickle":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=r"^teachers\.a\.checkpoint: "):
        read_weights(str(file), "teachers.a.checkpoint")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(trap)))
    assert trap.exists(), "the trap itself works"


def test_the_refusal_of_a_pickle_says_the_way_out(tmp_path):
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(
        ValueError, match=r"nothing of it was run: .*\(it wants [\w.]+\); save model\.state_dict\(\) as safetens"
    ):
        read_weights(str(tmp_path / "whole.pt"), "here")


def test_weights_that_do_not_fit_are_named_with_both_shapes():
    model, weights = net(), net(5).state_dict()
    before = weight_hash(model.state_dict())
    with pytest.raises(ValueError) as refusal:
        fit_weights(model, weights, "teachers.a.checkpoint")
    assert str(refusal.value) == (
        "teachers.a.checkpoint: the weights do not fit the model: "
        "0.weight has shape (5, 4) in the file and (3, 4) in the model; "
        "0.bias has shape (5,) in the file and (3,) in the model; "
        "1.weight has shape (5,) in the file and (3,) in the model; "
        "1.bias has shape (5,) in the file and (3,) in the model and 2 more; check the model's kwargs"
    )
    assert weight_hash(model.state_dict()) == before, "a refusal changes nothing"


def test_missing_and_unknown_names_are_told_apart():
    weights = net().state_dict()
    weights["0.wieght"] = weights.pop("0.weight")
    with pytest.raises(ValueError, match=r"model: 0\.weight is missing; 0\.wieght is not in the model; check"):
        fit_weights(net(), weights, "w")


def test_the_hash_changes_with_any_bit():
    weight = torch.tensor([1.5, -0.0, 3.0])
    before = weight_hash({"a": weight})
    seen = {before}
    for bit in range(96):
        changed = weight.clone()
        changed.view(torch.int32)[bit // 32] ^= 2 ** (bit % 32) if bit % 32 < 31 else -(2**31)
        seen.add(weight_hash({"a": changed}))
    assert len(seen) == 97 and weight_hash({"a": weight.clone()}) == before


def test_the_hash_sees_names_types_and_shapes_but_neither_order_nor_memory():
    zeros = torch.zeros(2, 3)
    others = [
        {"b": zeros},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": torch.zeros(1, 3), "b": torch.zeros(1, 3)},
        {"a": zeros, "count": torch.tensor(0)},
        {"a": zeros, "count": torch.tensor(1)},
        {},
    ]
    hashes = {weight_hash(one) for one in [{"a": zeros}, *others]}
    assert len(hashes) == 8
    left, right = torch.randn(2, 3), torch.randn(4).bfloat16()
    assert weight_hash({"a": left, "b": right}) == weight_hash({"b": right, "a": left.T.contiguous().T})
