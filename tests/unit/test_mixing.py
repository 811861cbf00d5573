"""Views that mix samples: pure in (seed, id, view), within the slice, and with the papers' loss on both labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from actors.data import BatchSampler, Rows, evaluation_rows, slice_ids, training_rows
from actors.knowledge import Position, TeacherRequest
from actors.mixing import Mixture, Mixtures, cutmix, mixup
from actors.pool.replica import Asked, _built
from actors.specs import ImportSpec, LossSpec
from actors.term import Outputs, Targets, Term
from orchestrator.checking import check
from orchestrator.config import ExperimentConfig
from tests.unit.digits_setup import DATA, SOFT, digits, save_teacher, student, trained
from tests.unit.test_plan import DIGITS

MIXUP = replace(DATA, views=ImportSpec("actors.mixing:mixup", {"alpha": 0.7, "padding": 1}))
CUTMIX = replace(DATA, views=ImportSpec("actors.mixing:cutmix", {}))


class Two:
    """A dark image of class 3 and a light one of class 5."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.full((1, 6, 8), (10, 250)[index], dtype=np.uint8), (3, 5)[index]


def dice(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize("seed", range(20))
def test_mixup_is_the_weighted_mean_and_its_weight_is_that_of_the_label(seed):
    weight = float(np.float32(dice(seed).beta(0.4, 0.4)))
    pixels, mixture = mixup(Two(), 0, dice(seed), partners=np.array([1]), alpha=0.4)
    assert mixture == Mixture(3, 5, weight) and pixels.dtype == np.uint8 and pixels.shape == (1, 6, 8)
    assert np.all(pixels == round(weight * 10 + (1 - weight) * 250))


@pytest.mark.parametrize("seed", range(40))
def test_cutmix_puts_one_box_of_the_partner_and_weighs_by_what_is_left(seed):
    pixels, mixture = cutmix(Two(), 0, dice(seed), partners=np.array([1]), alpha=1.0)
    taken = pixels[0] == 250
    assert set(np.unique(pixels)) <= {10, 250} and mixture.weight == pytest.approx(1 - taken.mean(), abs=1e-12)
    rows, columns = np.flatnonzero(taken.any(axis=1)), np.flatnonzero(taken.any(axis=0))
    assert taken.sum() == len(rows) * len(columns), "a box"
    assert mixture[:2] == (3, 5)
    share = (1 - dice(seed).beta(1.0, 1.0)) ** 0.5
    whole = [(int(6 * share), len(rows), 6), (int(8 * share), len(columns), 8)]
    assert all(seen <= side for side, seen, _ in whole) or not taken.any()
    edges = (rows[:1].tolist(), rows[-1:].tolist(), columns[:1].tolist(), columns[-1:].tolist())
    touches = any(edge == [end] for edge, end in zip(edges, (0, 5, 0, 7), strict=True))
    assert touches or not taken.any() or all(seen == side for side, seen, _ in whole), "cut off at the edges alone"


def test_the_weights_of_cutmix_are_spread_over_all_shares():
    weights = [cutmix(Two(), 0, dice(seed), partners=np.array([1]))[1].weight for seed in range(300)]
    assert min(weights) < 0.3 and max(weights) > 0.9 and 0.45 < np.mean(weights) < 0.75


@pytest.mark.parametrize("data", [MIXUP, CUTMIX], ids=["mixup", "cutmix"])
def test_a_mixture_depends_on_seed_id_and_view_alone_and_stays_within_the_slice(data):
    rows = training_rows(digits(), data)
    slices = slice_ids(data.slices, len(digits()), data.seed)
    ids, views = slices["student"][:30], np.arange(30, dtype=np.int32) % 3
    inputs, labels, mixtures = rows.mixed(ids, views)
    order = np.random.default_rng(0).permutation(30)
    again, labels_again, mixtures_again = training_rows(digits(), data).mixed(ids[order], views[order])
    assert mixtures is not None and mixtures_again is not None
    assert torch.equal(inputs["image"][order], again["image"]) and torch.equal(labels[order], labels_again)
    assert torch.equal(mixtures.partner_labels[order], mixtures_again.partner_labels)
    assert torch.equal(mixtures.weights[order], mixtures_again.weights)
    other_seed, _ = training_rows(digits(), replace(data, seed=1)).build(ids, views)
    assert not torch.equal(other_seed["image"], inputs["image"])


def noted(dataset, sample_id, generator, *, partners):
    return np.zeros((1, 2, 2), dtype=np.uint8), Mixture(len(partners), int(sample_id in partners), 0.5)


def test_partners_are_those_of_the_slice_and_what_is_in_none_has_its_own():
    spec = ImportSpec("tests.unit.test_mixing:noted")
    slices = slice_ids(DATA.slices, len(digits()), DATA.seed)
    left = np.setdiff1d(np.arange(len(digits())), np.concatenate(list(slices.values())))
    rows = Rows(digits(), spec, DATA.seed, DATA.slices)
    for ids in (slices["student"], slices["validation"], left):
        _, counts, mixtures = rows.mixed(ids[:3], np.zeros(3, dtype=np.int32))
        assert counts.tolist() == [len(ids)] * 3 and mixtures.partner_labels.tolist() == [1] * 3


def sometimes(dataset, sample_id, generator, *, partners):
    pixels, label = dataset[sample_id]
    return pixels[None], Mixture(int(label), 9, 0.25) if sample_id % 2 else label


def test_rows_that_a_view_leaves_alone_have_their_own_label_alone():
    rows = Rows(digits(), ImportSpec("tests.unit.test_mixing:sometimes"), DATA.seed, DATA.slices)
    _, labels, mixtures = rows.mixed(np.arange(4), np.zeros(4, dtype=np.int32))
    assert labels.tolist() == [int(digits()[index][1]) for index in range(4)]
    assert mixtures.weights.tolist() == [1.0, 0.25, 1.0, 0.25]
    assert mixtures.partner_labels.tolist() == [int(labels[0]), 9, int(labels[2]), 9]


class Unlike(Two):
    def __getitem__(self, index):
        return np.zeros((1, 6 + index, 8), dtype=np.uint8), 0


def test_images_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r"data\.views: sample 0 is .* its partner .* mixing needs images of one size"):
        mixup(Unlike(), 0, dice(), partners=np.array([1]))


def test_replicas_that_build_pixels_themselves_build_the_same():
    slices = slice_ids(MIXUP.slices, len(digits()), MIXUP.seed)
    sampler = BatchSampler(slices["student"], slices["more"][:0], 24, 3, 2)
    batch = sampler.batch(training_rows(digits(), MIXUP), Position(1, 2))
    asked = Asked(batch.ids, batch.views, (TeacherRequest("wide", rows=(3, 7)), TeacherRequest("deep")))
    built = _built(training_rows(digits(), MIXUP), asked)
    assert batch.mixtures is not None and np.array_equal(built[None][1], batch.digests)
    assert np.array_equal(built[3, 7][1], batch.digests[[3, 7]])


def test_the_loss_on_labels_is_the_weighted_mean_of_both():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, -1])
    mixtures = Mixtures(torch.tensor([4, 5, 6, 7]), torch.tensor([0.25, 1.0, 0.0, 0.5]))
    term = Term(LossSpec("hard", ImportSpec("torch.nn.functional:cross_entropy"), "labels"), {"logits": (10,)}, [])
    value = term(Outputs(logits), Targets(labels, torch.arange(4), mixtures=mixtures)).loss
    first = F.cross_entropy(logits[:3], labels[:3], reduction="none")
    second = F.cross_entropy(logits[:3], mixtures.partner_labels[:3], reduction="none")
    by_hand = (0.25 * first[0] + 0.75 * second[0] + first[1] + second[2]) / 3
    assert float(value) == pytest.approx(float(by_hand), abs=1e-6), "the fourth has no label"


def test_a_student_learns_from_mixtures_and_from_their_teachers(tmp_path):
    teacher = save_teacher(tmp_path)
    hard = LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss"), on="labels")
    spec = replace(student([teacher], [hard, SOFT]), data=MIXUP)
    plain = replace(student([teacher], [hard, SOFT]), data=DATA)
    assert trained(spec, tmp_path / "one") == trained(spec, tmp_path / "two") != trained(plain, tmp_path / "three")


def refusal(*overrides):
    with pytest.raises(ValueError) as raised:
        check(ExperimentConfig.from_yaml(DIGITS, ["data.views=actors.mixing:mixup", *overrides]))
    return str(raised.value)


def test_what_a_mixture_cannot_give_is_refused():
    mixing = ExperimentConfig.from_yaml(DIGITS, ["data.views={target: 'actors.mixing:cutmix', kwargs: {padding: 1}}"])
    assert check(mixing).num_classes == 10
    assert "data.evaluation_view: actors.mixing:mixup mixes samples" in refusal(
        "data.evaluation_view=actors.mixing:mixup"
    )
    assert "losses.soft.loss: actors.losses:dkd_loss takes one label for each sample" in refusal(
        "losses.soft={loss: 'actors.losses:dkd_loss', on: logits}"
    )
    assert "losses.soft.ensemble: actors.ensemble:confidence goes by one label" in refusal(
        "losses.soft={loss: 'actors.losses:kd_loss', on: logits, ensemble: confidence}"
    )
    assert "which tests.unit.test_mixing:whole needs an argument `reduction`" in refusal(
        "losses.hard.loss=tests.unit.test_mixing:whole"
    )
    assert "mixup() is given 'partners' by Collegium; leave it out" in refusal(
        "data.views={target: 'actors.mixing:mixup', kwargs: {partners: [1]}}"
    )


def whole(student_logits, labels):
    return F.cross_entropy(student_logits, labels)


def test_evaluation_sees_the_first_label_alone():
    inputs, labels = evaluation_rows(digits(), DATA).build(np.arange(3), np.zeros(3, dtype=np.int32))
    assert labels.tolist() == [int(digits()[index][1]) for index in range(3)] and inputs["image"].dtype == torch.uint8
