from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from actors import models

CNNS = [models.small_resnet, models.mobile_cnn, models.plain_cnn]
SIZED = [models.small_vit, models.mlp]
FAMILIES = [*CNNS, *SIZED, models.tiny_cnn]
DEEP = [*CNNS, *SIZED]
Family = Callable[..., nn.Module]


def build(family: Family, *, size: int = 28, seed: int = 0, **kwargs: int) -> nn.Module:
    torch.manual_seed(seed)
    return family(**({"size": size} if family in SIZED else {}), width=8, **kwargs)


def images(size: int = 28, channels: int = 1) -> torch.Tensor:
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(1))


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def outputs_of(model: nn.Module, path: str, inputs: torch.Tensor) -> torch.Tensor:
    seen: list[Any] = []
    hook = model.get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(output))
    model(inputs)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_become_logits(family: Family, size: int, channels: int) -> None:
    model = build(family, size=size, channels=channels, num_classes=7)
    assert model(images(size, channels)).shape == (4, 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_pool_gives_the_embedding_that_head_classifies(family: Family) -> None:
    model = build(family).eval()
    embedding = outputs_of(model, "pool", images())
    assert embedding.shape == (4, model.get_submodule("head").in_features)
    torch.testing.assert_close(model.get_submodule("head")(embedding), model(images()))


@pytest.mark.parametrize("family", CNNS)
def test_each_stage_halves_the_resolution_and_doubles_the_channels(family: Family) -> None:
    model = build(family, stem_stride=1)
    shapes = [tuple(outputs_of(model, f"stage{n}", images(32)).shape) for n in (1, 2, 3)]
    assert shapes == [(4, 8, 32, 32), (4, 16, 16, 16), (4, 32, 8, 8)]


@pytest.mark.parametrize("family", FAMILIES)
def test_width_grows_a_model(family: Family) -> None:
    assert num_parameters(family(width=16)) > num_parameters(family(width=8))


@pytest.mark.parametrize("family", DEEP)
def test_depth_grows_a_model(family: Family) -> None:
    assert num_parameters(build(family, depth=3)) > num_parameters(build(family, depth=2))


@pytest.mark.parametrize("family", DEEP)
def test_depth_zero_is_refused(family: Family) -> None:
    with pytest.raises(ValueError, match="depth: expected at least 1"):
        build(family, depth=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_one_model_and_a_state_dict_carries_it(family: Family) -> None:
    model, twin, other = build(family), build(family), build(family, seed=1)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name]), name
    assert not torch.equal(model(images()), other(images()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(images()), other.eval()(images()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_a_gradient(family: Family) -> None:
    model = build(family)
    model(images()).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_have_the_same_bits_with_and_without_gradients(family: Family) -> None:
    model = build(family).eval()
    with torch.no_grad():
        answer = model(images())
    assert torch.equal(answer, model(images()))


@pytest.mark.parametrize("family", CNNS)
def test_a_tap_before_a_relu_keeps_what_it_saw(family: Family) -> None:
    """An in-place ReLU would have made the tapped tensor positive."""
    assert outputs_of(build(family), "stem.1", images()).min() < 0


def test_the_student_is_tiny() -> None:
    assert num_parameters(models.tiny_cnn()) == 14_458


@pytest.mark.parametrize(("class_token", "num_tokens"), [(False, 49), (True, 50)])
def test_the_transformer_counts_its_patches(class_token: bool, num_tokens: int) -> None:
    model = models.small_vit(width=8, class_token=class_token)
    assert outputs_of(model, "blocks.0", images()).shape == (4, num_tokens, 8)
    assert outputs_of(model, "norm", images()).shape == (4, num_tokens, 8)


def test_the_transformer_tells_where_a_patch_stands() -> None:
    model = models.small_vit(width=8, patch=7).eval()
    assert not torch.allclose(model(images()), model(images().roll(7, dims=-1)), atol=1e-4)


def test_the_transformer_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="patch must divide size 28, got patch 5"):
        models.small_vit(patch=5)
    with pytest.raises(ValueError, match="num_heads must divide width 10, got 4"):
        models.small_vit(width=10)
    with pytest.raises(ValueError, match=r"built for images of 28x28, got \(32, 32\)"):
        models.small_vit(width=8)(images(32))
