"""The words of a report, on figures made by hand."""

from dataclasses import replace

import pytest

from actors.storage import Folder
from orchestrator.config import ExperimentConfig
from orchestrator.reporting import verdict
from orchestrator.reporting.paired import Paired
from orchestrator.reporting.recorded import RecordedRun
from orchestrator.reporting.removal import Removal, mean_over_seeds
from tests.unit.sample_run import document


def contribution(teacher, cross_entropy, accuracy=0.89, **more):
    figures = {"weight": 1 / 3, "gained_right": 700, "lost_wrong": 300, **more}
    return {"teacher": teacher, "cross_entropy_without": cross_entropy, "accuracy_without": accuracy, **figures}


THREE = [contribution("plain", 0.31), contribution("residual", 0.34, 0.881), contribution("transformer", 0.29)]


def run(contributions=THREE, against_alone=(890, 764), seed=0, alone=True, accuracy=0.8625):
    models = [
        {
            "name": "ensemble",
            "role": "ensemble",
            "accuracy": 0.8907,
            "cross_entropy": 0.3,
            "parameters": 400_000,
            "samples": 10_000,
        },
        {
            "name": "alone",
            "role": "alone",
            "accuracy": 0.8499,
            "cross_entropy": 0.42,
            "parameters": 14_000,
            "samples": 10_000,
        },
        {
            "name": "student",
            "role": "student",
            "accuracy": accuracy,
            "cross_entropy": 0.37,
            "parameters": 14_000,
            "samples": 10_000,
        },
    ]
    result = {
        "seed": seed,
        "models": models if alone else [model for model in models if model["role"] != "alone"],
        "contributions": contributions,
        "test_samples": 10_000,
        "against_alone": dict(zip(("gained", "lost"), against_alone, strict=True)) if against_alone else None,
    }
    config = ExperimentConfig.from_document(document()).model_dump()
    return RecordedRun(Folder("/runs/sample/1"), result, config)


def check(teacher, gained, lost, whole=None, accuracy=0.869):
    return Removal(teacher, whole or run(), run(accuracy=accuracy), Paired(gained, lost, 10_000))


def test_a_paired_difference_counts_the_samples_on_which_two_models_differ():
    paired = Paired(890, 764, 10_000)
    assert paired.points == pytest.approx(1.26)
    assert paired.standard_errors == pytest.approx(126 / 1654**0.5)
    assert str(paired) == "+1.26 points, 3.1 standard errors" and paired.is_beyond_chance
    assert str(Paired(0, 0, 10)) == "+0.00 points, 0.0 standard errors"
    assert not Paired(5, 2, 10).is_beyond_chance and Paired(2, 20, 100).is_beyond_chance


@pytest.mark.parametrize(
    ("gained", "lost", "probability"),
    [(4, 0, 2 / 16), (5, 0, 2 / 32), (6, 0, 2 / 64), (0, 6, 2 / 64), (3, 3, 1), (0, 0, 1), (9, 2, 134 / 2048)],
)
def test_chance_is_that_of_a_coin(gained, lost, probability):
    assert Paired(gained, lost, 100).probability == pytest.approx(probability)
    assert Paired(gained, lost, 100).is_beyond_chance == (probability < 0.05)


def test_what_the_removal_of_one_who_helps_a_little_should_show():
    helpful = [contribution("a", 0.31), contribution("b", 0.34)]
    worse = verdict.check_sentence(check("a", 100, 240, run(helpful)))
    assert worse.endswith("this bears it out."), "the ensemble is worse without it"
    better = verdict.check_sentence(check("a", 240, 100, run(helpful)))
    assert better.endswith("this does not bear it out, the student is better without it.")


def test_better_by_one_figure_and_worse_by_the_other_is_said():
    mixed = [contribution("a", 0.29, 0.88), contribution("b", 0.34)]
    assert (
        ": the ensemble is better without it by cross-entropy, worse by accuracy."
        in (verdict.teacher_sentences(run(mixed))[1][1])
    )


def test_student_and_ensemble_on_other_samples_are_not_compared():
    partial = run()
    partial.models[0]["samples"] = 9_000
    assert not any("the ensemble" in said for said in verdict.gain_sentences(partial))


def test_the_gain_is_said_with_its_standard_errors():
    first, second, third, last = verdict.gain_sentences(run())
    assert first == (
        "The student has 86.25 %, the same student alone 84.99 %: +1.26 points, 3.1 standard errors. "
        "That is beyond chance on these test samples."
    )
    assert second.startswith("It has 890 test samples right") and "764 wrong" in second
    assert third == "It stands 2.82 points below the ensemble, with 3.5 % of its parameters."
    assert last == verdict.ONE_SEED


def test_a_gain_within_chance_and_a_loss_are_called_so():
    assert "may be chance" in verdict.gain_sentences(run(against_alone=(764, 750)))[0]
    assert "Distilling has hurt." in verdict.gain_sentences(run(against_alone=(700, 890)))[0]
    assert "hurt" not in verdict.gain_sentences(run())[0]


def test_without_a_student_alone_there_is_no_gain():
    said = verdict.gain_sentences(run(alone=False, against_alone=None))
    assert said[0] == "The student has 86.25 %; there is no student alone to compare it with."
    assert verdict.gain_over_alone(run(alone=False, against_alone=None)) is None


def test_helped_most_is_whose_absence_makes_the_ensemble_worst():
    (most, its_figures), (least, others) = verdict.teacher_sentences(run())
    assert (most, least) == ("residual helped most.", "transformer helped least.")
    assert its_figures == (
        "Without residual the ensemble's cross-entropy goes from 0.3000 to 0.3400 and its accuracy from 89.07 % to "
        "88.10 %. Its mean weight in the student's losses was 0.33. It had 700 of the 890 samples right that the "
        "student gained over the student alone, and 300 of the 764 wrong that it lost."
    )
    assert "from 0.3000 to 0.2900" in others and "the ensemble is better without it" in others


def test_accuracy_decides_between_equal_cross_entropies():
    pair = [contribution("a", 0.31, 0.88), contribution("b", 0.31, 0.87)]
    assert (verdict.helped_most(pair), verdict.helped_least(pair)) == (["b"], ["a"])


def test_ties_are_said():
    tied = [contribution("a", 0.31), contribution("b", 0.35), contribution("c", 0.31)]
    assert [lead for lead, _ in verdict.teacher_sentences(run(tied))] == [
        "b helped most.",
        "a and c helped least, equally.",
    ]
    lead, rest = verdict.teacher_sentences(run(tied[::2]))[0]
    assert lead == "a and c helped alike:" and "whichever is left out" in rest
    assert verdict.helped_least(tied[::2]) == []


def test_one_teacher_is_not_ranked():
    [(lead, rest)] = verdict.teacher_sentences(run([]))
    assert f"{lead} {rest}" == "The student listens to fewer than two teachers: there is none to rank."
    assert verdict.unchecked(run([]), []) is None


def test_without_a_student_alone_the_figures_leave_it_out():
    figures = verdict.teacher_sentences(run(alone=False, against_alone=None))[0][1]
    assert figures.endswith("was 0.33.")


@pytest.mark.parametrize(
    ("teacher", "gained", "lost", "outcome"),
    [
        ("transformer", 510, 445, "+0.65 points, 2.1 standard errors: this bears it out."),
        ("transformer", 300, 340, "-0.40 points, 1.6 standard errors: too small to tell."),
        (
            "transformer",
            100,
            140,
            "-0.40 points, 2.6 standard errors: this does not bear it out, the student is worse without it.",
        ),
        ("transformer", 330, 320, "+0.10 points, 0.4 standard errors: too small to tell."),
        ("residual", 100, 240, "-1.40 points, 7.6 standard errors: this bears it out."),
        (
            "residual",
            240,
            100,
            "+1.40 points, 7.6 standard errors: this does not bear it out, the student is better without it.",
        ),
        ("plain", 100, 240, "-1.40 points, 7.6 standard errors: the student is worse without it."),
    ],
)
def test_a_removal_bears_the_ranking_out_or_not(teacher, gained, lost, outcome):
    said = verdict.check_sentence(check(teacher, gained, lost))
    start = f"Checked: without {teacher} the student has 86.90 % (with it 86.25 %; seed 0), "
    assert said == start + outcome


def test_removals_under_several_seeds_are_put_together():
    checks = [check("transformer", 510, 445), check("transformer", 510, 475, whole=run(seed=1))]
    assert verdict.removal_sentences(checks)[-1] == (
        "Without transformer, over 2 seeds: +0.50 points, standard error 0.15."
    )
    assert len(verdict.removal_sentences(checks[:1])) == 1
    assert mean_over_seeds(checks) == pytest.approx((0.5, 0.15, 2))


def test_what_is_still_to_be_tried_is_the_least_helpful_teacher():
    whole = run()
    assert verdict.unchecked(whole, []) == "transformer"
    assert verdict.unchecked(whole, [check("plain", 1, 0, whole)]) == "transformer"
    assert verdict.unchecked(whole, [check("transformer", 1, 0, whole)]) is None
    other = replace(whole)
    assert verdict.unchecked(other, [check("transformer", 1, 0, whole)]) == "transformer"
    again, see = verdict.commands(whole, "transformer")
    assert again == "collegium run /runs/sample/1/config.yaml 'losses.soft.teachers=[residual,plain]' storage=/runs"
    assert see == "collegium report /runs/sample/1"
