"""What a run found, in words: the student's gain, which teacher helped most and least, and whether that was borne out.

Pure: plain figures in, sentences out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from orchestrator.reporting.paired import Paired
from orchestrator.reporting.recorded import RecordedRun, Values
from orchestrator.reporting.removal import Removal, mean_over_seeds, removal_command
from orchestrator.result import shown_cause

ONE_SEED = "Standard errors count the test samples alone: one run says nothing of other seeds."


def percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def dropped_sentences(run: RecordedRun) -> list[str]:
    """What the run lost on the way, and what that means."""
    said = []
    for rung, dropped in run.dropped.items():
        lost = listed([f"{name} ({shown_cause(cause)})" for name, cause in dropped.items()])
        said.append(
            f"While {rung} was trained it lost {lost}, and went on without, as may_be_dropped allows. It is not what "
            "all of its teachers would have made, and the same config with the same seed may give another one."
        )
    return said


def gain_over_alone(run: RecordedRun) -> Paired | None:
    """The student against the same student alone; None where there is none."""
    counted = run.result["against_alone"]
    return Paired(counted["gained"], counted["lost"], run.result["test_samples"]) if counted else None


def gain_sentences(run: RecordedRun) -> list[str]:
    """How good the student is, alone and against the ensemble."""
    student, alone, ensemble = run.student, run.model("alone"), run.model("ensemble")
    paired = gain_over_alone(run)
    if alone is None or paired is None:
        said = [f"The student has {percent(student['accuracy'])}; there is no student alone to compare it with."]
    else:
        said = [
            f"The student has {percent(student['accuracy'])}, the same student alone {percent(alone['accuracy'])}: "
            f"{paired}. {_judged(paired)}",
            f"It has {paired.gained:,} test samples right that the student alone has wrong, and "
            f"{paired.lost:,} wrong that the student alone has right.",
        ]
    return [*said, *_against_ensemble(student, ensemble), ONE_SEED]


def ranked(contributions: Sequence[Values]) -> list[list[Values]]:
    """Teachers by what the ensemble becomes without each, the most helpful first; those that tie stand together."""
    ordered = sorted(contributions, key=_worth, reverse=True)
    return [list(tied) for _, tied in groupby(ordered, key=_worth)]


def helped_most(contributions: Sequence[Values]) -> list[str]:
    ranks = ranked(contributions)
    return [one["teacher"] for one in ranks[0]] if len(ranks) > 1 else []


def helped_least(contributions: Sequence[Values]) -> list[str]:
    ranks = ranked(contributions)
    return [one["teacher"] for one in ranks[-1]] if len(ranks) > 1 else []


def teacher_sentences(run: RecordedRun) -> list[tuple[str, str]]:
    """Which teacher helped most and which least, each with the figures behind it."""
    contributions, ensemble = run.result["contributions"], run.model("ensemble")
    if len(contributions) < 2 or ensemble is None:
        return [("The student listens to fewer than two teachers:", "there is none to rank.")]
    ranks = ranked(contributions)
    if len(ranks) == 1:
        names = listed([one["teacher"] for one in contributions])
        return [(f"{names} helped alike:", "the ensemble is the same whichever is left out.")]
    return [
        (_headline(tied, word), " ".join(_figures(run, one, ensemble) for one in tied))
        for tied, word in ((ranks[0], "most"), (ranks[-1], "least"))
    ]


def removal_sentences(checks: Sequence[Removal]) -> list[str]:
    """What runs without one of the teachers say of the ranking."""
    said = [check_sentence(one) for one in checks]
    for teacher, same in groupby(checks, key=lambda one: one.teacher):
        several = list(same)
        if len({one.whole.result["seed"] for one in several}) > 1:
            mean, error, count = mean_over_seeds(several)
            said.append(f"Without {teacher}, over {count} seeds: {mean:+.2f} points, standard error {error:.2f}.")
    return said


def unchecked(run: RecordedRun, checks: Sequence[Removal]) -> str | None:
    """The teacher whose removal is still to be tried: the least helpful one."""
    least = helped_least(run.result["contributions"])
    tried = {one.teacher for one in checks if one.whole is run}
    return next(iter(least), None) if not tried & {*least} else None


def commands(run: RecordedRun, teacher: str) -> tuple[str, str]:
    """What to type to try it without a teacher, and to see the outcome."""
    return removal_command(run, teacher), f"collegium report {run.folder}"


def check_sentence(check: Removal) -> str:
    """One removal: both students, and whether the ranking is borne out."""
    less, whole = (percent(run.student["accuracy"]) for run in (check.less, check.whole))
    seed = check.whole.result["seed"]
    return (
        f"Checked: without {check.teacher} the student has {less} (with it {whole}; seed {seed}), {check.paired}: "
        f"{_outcome(check)}."
    )


def _outcome(check: Removal) -> str:
    if not check.paired.is_beyond_chance:
        return "too small to tell"
    is_better = check.paired.points > 0
    found = f"the student is {'better' if is_better else 'worse'} without it"
    contributions = check.whole.result["contributions"]
    if check.teacher not in {*helped_least(contributions), *helped_most(contributions)}:
        return found
    return "this bears it out" if is_better == _expected_better(check) else f"this does not bear it out, {found}"


def _expected_better(check: Removal) -> bool:
    """What the ensemble said: whether it is better without this teacher."""
    ensemble = check.whole.model("ensemble")
    [one] = [one for one in check.whole.result["contributions"] if one["teacher"] == check.teacher]
    return ensemble is not None and one["cross_entropy_without"] < ensemble["cross_entropy"]


def _judged(paired: Paired) -> str:
    if not paired.is_beyond_chance:
        return f"On so few differing samples that may be chance (p = {paired.probability:.2g})."
    return "That is beyond chance on these test samples." + (" Distilling has hurt." if paired.points < 0 else "")


def _against_ensemble(student: Values, ensemble: Values | None) -> list[str]:
    if ensemble is None or student["samples"] != ensemble["samples"]:
        return []
    points = 100 * (student["accuracy"] - ensemble["accuracy"])
    where = f"{abs(points):.2f} points {'below' if points < 0 else 'above'}" if points else "level with"
    return [f"It stands {where} the ensemble, with {_share(student, ensemble)} % of its parameters."]


def _share(student: Values, ensemble: Values) -> str:
    share = 100 * student["parameters"] / ensemble["parameters"]
    return f"{share:,.0f}" if share >= 10 else f"{share:.2g}"


def _worth(one: Values) -> tuple[float, float]:
    """The more, the worse the ensemble is without this teacher."""
    return one["cross_entropy_without"], -one["accuracy_without"]


def _headline(tied: Sequence[Values], rank: str) -> str:
    names = [one["teacher"] for one in tied]
    return f"{listed(names)} helped {rank}" + (", equally." if len(names) > 1 else ".")


def _figures(run: RecordedRun, one: Values, ensemble: Values) -> str:
    return (
        f"Without {one['teacher']} the ensemble's cross-entropy goes from {ensemble['cross_entropy']:.4f} to "
        f"{one['cross_entropy_without']:.4f} and its accuracy from {percent(ensemble['accuracy'])} to "
        f"{percent(one['accuracy_without'])}{_better_without(one, ensemble)}. "
        f"Its mean weight in the student's losses was {one['weight']:.2f}.{_of_samples(run, one)}"
    )


def _better_without(one: Values, ensemble: Values) -> str:
    if one["cross_entropy_without"] >= ensemble["cross_entropy"]:
        return ""
    if one["accuracy_without"] < ensemble["accuracy"]:
        return ": the ensemble is better without it by cross-entropy, worse by accuracy"
    return ": the ensemble is better without it"


def _of_samples(run: RecordedRun, one: Values) -> str:
    counted = run.result["against_alone"]
    if not counted:
        return ""
    return (
        f" It had {one['gained_right']:,} of the {counted['gained']:,} samples right that the student gained over "
        f"the student alone, and {one['lost_wrong']:,} of the {counted['lost']:,} wrong that it lost."
    )
