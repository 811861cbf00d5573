"""A view is a pure function of (seed, id, view)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actors.views import ViewDice, as_pixels, crop_and_flip, plain


class Ramp:
    """One image of 4x3 pixels, all different and none of them 0."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int):
        return np.arange(1, 13, dtype=np.uint8).reshape(4, 3) + 10 * np.uint8(index), index


def drawn(seed, sample_id, view):
    return ViewDice(seed).at(sample_id, view).random(4).tolist()


def test_the_dice_are_numpys_philox_keyed_by_seed_and_id():
    bits = np.random.Philox(key=[7, 123456789], counter=[0, 0, 0, 5])
    assert drawn(7, 123456789, 5) == np.random.Generator(bits).random(4).tolist()


def test_another_seed_id_or_view_draws_otherwise():
    draws = [drawn(s, i, v) for s in range(3) for i in range(3) for v in range(3)]
    assert len({tuple(draw) for draw in draws}) == 27


@pytest.mark.parametrize("drawn_before", [0, 1, 3, 4, 7])
def test_what_was_drawn_before_does_not_count(drawn_before):
    dice = ViewDice(0)
    generator = dice.at(4, 2)
    generator.random(drawn_before)
    generator.integers(0, 3, size=drawn_before, dtype=np.uint32)
    assert dice.at(8, 1).random(4).tolist() == drawn(0, 8, 1)


PIXELS = """
import numpy as np
from actors.views import ViewDice, crop_and_flip
dataset = [(np.arange(64, dtype=np.uint8).reshape(8, 8) + i, i) for i in range(30)]
dice = ViewDice(3)
def pixels(pairs): return {pair: crop_and_flip(dataset, pair[0], dice.at(*pair))[0].tobytes().hex() for pair in pairs}
pairs = [(i, view) for i in range(30) for view in (0, 1, 7)]
"""


def test_another_process_that_goes_backwards_sees_the_same_pixels():
    ours: dict = {}
    exec(PIXELS + "found = pixels(pairs)", ours)
    code = PIXELS + "np.random.seed(1); theirs = pixels(pairs[::-1]); print([theirs[pair] for pair in pairs])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "12"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(list(ours["found"].values())) and len(set(ours["found"].values())) > 60


def test_plain_is_the_sample_as_it_is():
    image, label = plain(Ramp(), 2, ViewDice(0).at(2, 9))
    assert label == 2 and image.dtype == np.uint8
    assert image.tolist() == [[[21, 22, 23], [24, 25, 26], [27, 28, 29], [30, 31, 32]]]


@pytest.mark.parametrize("flip", [True, False])
def test_crop_and_flip_gives_every_crop_of_the_padded_image_and_nothing_else(flip):
    padded = np.pad(plain(Ramp(), 0, ViewDice(0).at(0, 0))[0][0], 1)
    crops = [padded[row : row + 4, column : column + 3] for row in range(3) for column in range(3)]
    possible = {crop.tobytes() for crop in crops} | ({crop[:, ::-1].tobytes() for crop in crops} if flip else set())
    views = [crop_and_flip(Ramp(), 0, ViewDice(1).at(0, v), padding=1, flip=flip) for v in range(600)]
    assert {image.tobytes() for image, _ in views} == possible
    assert {image.shape for image, _ in views} == {(1, 4, 3)} and {label for _, label in views} == {0}
    assert views[0][0].dtype == np.uint8


def test_crop_and_flip_leaves_the_dataset_alone():
    image = np.arange(1, 10, dtype=np.uint8).reshape(3, 3)
    for view in range(20):
        crop_and_flip([(image, 1)], 0, ViewDice(0).at(0, view), padding=2)
    assert image.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_pixels_of_images_arrays_and_tensors():
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert as_pixels(Image.fromarray(colour)).shape == (3, 2, 4)
    assert as_pixels(Image.fromarray(colour))[2].tolist() == colour[:, :, 2].tolist()
    assert as_pixels(Image.fromarray(colour[:, :, 0])).shape == (1, 2, 4)
    assert as_pixels(colour.transpose(2, 0, 1)).shape == (3, 2, 4), "an array has its channels first"
    with pytest.raises(ValueError, match=r"\(2, 4, 3\) looks like \(height, width, channels\)"):
        as_pixels(colour)


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"data: an image must be .* got shape \(5,\); give data.views a function"):
        as_pixels(np.zeros(5))
