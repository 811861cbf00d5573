import pytest
import torch
from torch import nn

from actors.connectors import SpatialResize, connect
from actors.specs import ImportSpec

torch.set_num_threads(1)


def connected(student, teacher, aligns="all", connector=None):
    return connect(
        student,
        teacher,
        aligns,
        student_tap="block2",
        teacher_tap="layer2",
        where="losses.hint",
        connector=connector,
    )


def message(*args, **kwargs) -> str:
    with pytest.raises(ValueError) as error:
        connected(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    "student, teacher, aligns",
    [
        ((8, 4, 4), (8, 4, 4), "all"),
        ((5,), (5,), "all"),
        ((3, 8, 4, 4), (3, 8, 4, 4), "all"),
        ((8, 4, 4), (16, 4, 4), "space"),
        ((8,), (16,), "space"),
        ((49, 8), (49, 16), "space"),
        ((8, 4, 4), (16,), "nothing"),
        ((8, 4, 4), (8, 2, 2), "channels"),
    ],
)
def test_nothing_to_do(student, teacher, aligns):
    assert isinstance(connected(student, teacher, aligns), nn.Identity)


@pytest.mark.parametrize(
    "student, teacher, num_parameters",
    [
        ((3,), (5,), 3 * 5 + 5),
        ((7, 3), (7, 5), 3 * 5 + 5),
        ((3, 4, 4), (5, 4, 4), 3 * 5 + 5),
        ((3, 8, 8), (5, 4, 4), 3 * 5 + 5),
        ((3, 4, 4), (5, 7, 7), 3 * 5 + 5),
        ((3, 8, 4), (3, 4, 8), 0),
    ],
)
def test_takes_the_students_shape_to_the_teachers(student, teacher, num_parameters):
    module = connected(student, teacher)
    assert module(torch.ones(2, *student)).shape == (2, *teacher)
    assert sum(p.numel() for p in module.parameters()) == num_parameters


def test_space_leaves_the_channels():
    module = connected((3, 8, 8), (5, 4, 4), "space")
    assert isinstance(module, SpatialResize)
    assert module(torch.ones(2, 3, 8, 8)).shape == (2, 3, 4, 4)


def test_the_convolution_stands_where_the_map_is_smaller():
    assert [type(part) for part in connected((3, 8, 8), (5, 4, 4))] == [SpatialResize, nn.Conv2d]
    assert [type(part) for part in connected((3, 4, 4), (5, 8, 8))] == [nn.Conv2d, SpatialResize]


def test_resize_down_is_the_mean_of_the_cells():
    features = torch.tensor([[[[1.0, 2, 3, 4], [5, 6, 7, 8]]]])
    assert SpatialResize((1, 2))(features).tolist() == [[[[3.5, 5.5]]]]


def test_resize_up_is_bilinear():
    # pixel centres: outputs at -0.25 (held), 0.25, 0.75, 1.25 (held)
    assert SpatialResize((1, 4))(torch.tensor([[[[0.0, 4.0]]]])).tolist() == [[[[0.0, 1.0, 3.0, 4.0]]]]


def test_resize_mixed_is_bilinear():
    features = torch.tensor([[[[0.0, 4.0], [2.0, 6.0]]]])
    assert SpatialResize((1, 4))(features).tolist() == [[[[1.0, 2.0, 4.0, 5.0]]]]


def test_weights_are_drawn_from_torchs_generator():
    def weights(seed):
        torch.manual_seed(seed)
        return connected((3, 4, 4), (5, 4, 4)).weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_refuses_shapes_without_a_connector():
    assert message((16, 8, 8), (512,)) == (
        "losses.hint: the loss needs equal shapes, got student tap 'block2' (16, 8, 8) and "
        "teacher tap 'layer2' (512,); tap other modules or give losses.hint.connector"
    )
    assert message((49, 8), (64, 8), "space") == (
        "losses.hint: the loss needs shapes equal but for the channels, got student tap 'block2' (49, 8) and "
        "teacher tap 'layer2' (64, 8); tap other modules or give losses.hint.connector"
    )


@pytest.mark.parametrize(
    "student, teacher, aligns",
    [
        ((49, 8), (64, 8), "all"),
        ((8,), (8, 1, 1), "space"),
        ((2, 3, 4, 4), (3, 3, 4, 4), "all"),
        ((), (3,), "all"),
    ],
)
def test_refuses(student, teacher, aligns):
    assert "give losses.hint.connector" in message(student, teacher, aligns)


def pooled(student_shape, teacher_shape, *, bias=True) -> nn.Module:
    linear = nn.Linear(student_shape[0], teacher_shape[0], bias=bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


def shaped_as_before(student_shape, teacher_shape) -> nn.Module:
    return nn.Identity()


def not_a_module(student_shape, teacher_shape):
    return abs


def refusing(student_shape, teacher_shape) -> nn.Module:
    return nn.Linear(student_shape[0] + 1, teacher_shape[0])


def mine(function, **kwargs) -> ImportSpec:
    return ImportSpec(f"{__name__}:{function.__name__}", kwargs)


def test_builds_the_users_connector():
    module = connected((3, 4, 4), (5,), connector=mine(pooled, bias=False))
    assert module(torch.ones(2, 3, 4, 4)).shape == (2, 5)
    assert len(list(module.parameters())) == 1
    assert module.training


def test_the_users_connector_is_held_to_the_rule():
    spec = mine(shaped_as_before)
    assert isinstance(connected((3, 4, 4), (5, 4, 4), "space", spec), nn.Identity)
    assert message((3, 4, 4), (5, 4, 4), "all", spec) == (
        "losses.hint.connector: gives (3, 4, 4) for student tap 'block2' (3, 4, 4) and "
        "teacher tap 'layer2' (5, 4, 4); make it give (5, 4, 4)"
    )


def test_a_users_connector_that_fails():
    assert message((3,), (5,), connector=mine(pooled, size=2)) == (
        f"losses.hint.connector: {__name__}:pooled is called with the shapes (3,) and (5,), then its kwargs; "
        "it failed: TypeError: pooled() got an unexpected keyword argument 'size'"
    )
    text = message((3,), (5,), connector=mine(refusing))
    assert text.startswith(
        "losses.hint.connector: cannot take student tap 'block2' (3,) and teacher tap 'layer2' (5,): RuntimeError: "
    )
    assert "it is called with features of shape (rows, 3)" in text


def test_a_users_connector_that_is_no_module():
    assert message((3,), (5,), connector=mine(not_a_module)) == (
        f"losses.hint.connector: {__name__}:not_a_module must return a torch.nn.Module, "
        "got builtin_function_or_method; return the layer itself"
    )
