"""From raw inputs to what a model takes."""

import pytest
import torch
from torch.testing import assert_close

from actors.inputs import prepare
from actors.specs import InputSpec


def assert_is(found, wanted):
    assert_close(found, torch.tensor(wanted, dtype=torch.float32))


BYTES = torch.tensor([0, 51, 102, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)


def test_bytes_become_0_to_1_and_floats_stay():
    found = prepare({"image": BYTES}, InputSpec())
    assert_is(found, [[[[0, 0.2], [0.4, 1]]]])
    floats = torch.tensor([[[[-3.0, 255.0]]]], dtype=torch.float64)
    assert_close(prepare({"image": floats}, InputSpec()), floats.float())


def test_normalised_by_mean_and_std_of_pixels_in_0_to_1():
    assert_is(prepare({"image": BYTES}, InputSpec(mean=(0.2,), std=(0.25,))), [[[[-0.8, 0], [0.8, 3.2]]]])
    assert_is(prepare({"image": BYTES}, InputSpec(std=(0.5,))), [[[[0, 0.4], [0.8, 2]]]])


def test_each_channel_has_its_own_mean_and_std():
    spec = InputSpec(channels=3, mean=(0, 0.2, 1), std=(1, 0.1, 2))
    found = prepare({"image": BYTES}, spec)
    assert found.shape == (1, 3, 2, 2)
    assert_is(found[0, 0], [[0, 0.2], [0.4, 1]])
    assert_is(found[0, 1], [[-2, 0], [2, 8]])
    assert_is(found[0, 2], [[-0.5, -0.4], [-0.3, 0]])


def test_colour_becomes_grey_by_the_mean():
    colour = torch.tensor([0.0, 0.3, 0.9]).reshape(1, 3, 1, 1)
    assert_is(prepare({"image": colour}, InputSpec(channels=1)), [[[[0.4]]]])
    assert prepare({"image": colour}, InputSpec(channels=3)).shape == (1, 3, 1, 1)


def test_channels_that_cannot_be_had_are_refused():
    with pytest.raises(ValueError, match=r"^teachers\.a\.input\.channels: expected 1 or 3 \(the data's\), got 4$"):
        prepare({"image": torch.zeros(1, 3, 2, 2)}, InputSpec(channels=4), "teachers.a.input")


def test_resized_to_a_square_with_antialiasing():
    ramp = torch.linspace(0, 1, 8).expand(1, 1, 6, 8)
    found = prepare({"image": ramp}, InputSpec(size=4))
    assert found.shape == (1, 1, 4, 4) and bool((found.diff(dim=3) > 0).all())
    stripes = torch.tensor([0.0, 1, 1, 0, 0, 1, 1, 0]).expand(1, 1, 8, 8)
    shrunk = prepare({"image": stripes}, InputSpec(size=2))
    assert bool((shrunk > 0.3).all() and (shrunk < 0.7).all()), "without antialiasing all of them are 0 or 1"
    grown = prepare({"image": torch.full((2, 1, 3, 3), 0.25)}, InputSpec(size=7))
    assert_close(grown, torch.full((2, 1, 7, 7), 0.25))


def test_another_input_is_taken_by_name():
    inputs = {"image": BYTES, "depth": torch.ones(1, 1, 2, 2)}
    assert_close(prepare(inputs, InputSpec(name="depth")), torch.ones(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"^student\.input\.name: the data has no input 'sound', it has 'image', 'dep"):
        prepare(inputs, InputSpec(name="sound"), "student.input")


def test_vectors_pass_normalisation_alone():
    vectors = torch.tensor([[1.0, 2.0]])
    assert_is(prepare({"image": vectors}, InputSpec(mean=(1, 4), std=(2,))), [[0, -1]])
    for spec in (InputSpec(size=9), InputSpec(channels=5)):
        with pytest.raises(ValueError, match=r"^student\.input: size and channels are for images, .* \(2,\)"):
            prepare({"image": vectors}, spec, "student.input")


@pytest.mark.parametrize("key", ["mean", "std"])
def test_numbers_are_one_or_one_per_channel(key):
    with pytest.raises(ValueError, match=rf"^student\.input\.{key}: expected 1 or 1 numbers, got 2"):
        prepare({"image": BYTES}, InputSpec(**{key: (0.5, 0.5)}), "student.input")


def test_the_batch_itself_does_not_change():
    floats = torch.rand(2, 1, 4, 4)
    before = floats.clone()
    for spec in (InputSpec(), InputSpec(size=4, channels=1), InputSpec(mean=(0.5,)), InputSpec(size=2)):
        prepare({"image": floats}, spec).zero_()
        assert torch.equal(floats, before), "a model that works in place would change what others see"
    prepare({"image": BYTES}, InputSpec()).zero_()
    assert BYTES.flatten().tolist() == [0, 51, 102, 255]
