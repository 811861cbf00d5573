"""Every loss of every case against every promise of the kit."""

import pytest
import torch

from tests.methods import kit
from tests.methods.cases import feature, relation, response

CASES = (*response.CASES, *feature.CASES, *relation.CASES)


def of_cases(cases=CASES):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


DISTILLING = tuple(case for case in CASES if case.metadata is not None)
ZERO_AT_EQUALITY = tuple(case for case in CASES if case.metadata and case.metadata.zero_at_equality)
PER_SAMPLE = tuple(case for case in CASES if case.has_option("reduction"))
GOLDEN = [(case, row) for case in CASES for row in case.golden]


@pytest.mark.parametrize(
    ("case", "row"), GOLDEN, ids=[f"{case.name}-{row.loss}-{row.hyperparameters}-{row.inputs}" for case, row in GOLDEN]
)
def test_golden_value(case, row):
    kit.check_golden(case, row)


@of_cases(ZERO_AT_EQUALITY)
def test_zero_at_equality(case):
    kit.check_zero_at_equality(case)


@of_cases()
def test_gradient(case):
    kit.check_gradient(case)


@of_cases()
def test_shape_error(case):
    kit.check_shape_error(case)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@of_cases()
def test_half_precision(case, dtype):
    kit.check_half_precision(case, dtype)


@of_cases()
def test_extremes(case):
    kit.check_extremes(case)


@of_cases()
def test_autocast(case):
    kit.check_autocast(case)


@of_cases(PER_SAMPLE)
def test_reduction(case):
    kit.check_reduction(case)


@of_cases()
def test_permutation(case):
    kit.check_permutation(case)


@of_cases()
def test_purity(case):
    kit.check_purity(case)


@of_cases(DISTILLING)
def test_alignment(case):
    kit.check_alignment(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@of_cases(tuple(case for case in CASES if case.metadata and case.metadata.phi))
def test_phi_and_what_closes_it_are_the_loss(case, dtype):
    kit.check_phi(case, dtype)


@of_cases()
def test_signature(case):
    kit.check_signature(case)


def test_losses_that_relate_samples_have_no_reduction():
    assert {case.name for case in CASES} - {case.name for case in PER_SAMPLE} == {
        "dist_loss",
        "pkt_loss",
        "rkd_angle_loss",
        "rkd_distance_loss",
        "similarity_preserving_loss",
    }


@of_cases(tuple(case for case in CASES if case.has_option("temperature")))
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_above_zero(case, temperature):
    with pytest.raises(ValueError, match=f"temperature: expected a number above 0, got {temperature}"):
        case(case.inputs(), temperature=temperature)


@of_cases(tuple(case for case in CASES if case.on_logits))
def test_logits_are_matrices(case):
    inputs = {name: tensor[0] for name, tensor in case.inputs().items()}
    with pytest.raises(ValueError, match=r"student_logits: expected shape \(N, C\), got \(6,\)"):
        case(inputs)
