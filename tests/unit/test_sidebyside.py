"""The arithmetic of the benchmarks: turns, medians, ratios, goals."""

import json

import pytest

from benchmarks import sidebyside
from benchmarks.sidebyside import Goal, Ratio, alternate, keep, per_second


def test_ways_take_turns_and_every_other_round_goes_backwards():
    order = []

    def way(name):
        return lambda: order.append(name) or len(order)

    measured = alternate({name: way(name) for name in "abc"}, rounds=3)

    assert "".join(order) == "abccbaabc"
    assert measured == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_rounds():
    ratio = Ratio.of([90, 100, 300], [100, 200, 150])

    assert (ratio.of_medians, ratio.lowest, ratio.highest) == (100 / 150, 0.5, 2.0)
    assert str(ratio) == "0.67 (0.50 to 2.00)"


def test_rounds_must_pair():
    with pytest.raises(ValueError):
        Ratio.of([1, 2], [1])


@pytest.mark.parametrize(("value", "at_least", "met"), [(0.95, True, True), (0.949, True, False), (1.2, False, True)])
def test_a_goal_at_its_bound_is_met(value, at_least, met):
    goal = Goal("pool", Ratio(value, 0.1, 9.0), 0.95 if at_least else 1.2, at_least)
    assert goal.met is met
    assert str(goal).endswith("met" if met else "MISSED")


def test_what_settles_is_off_the_clock(monkeypatch):
    """Steps of 1 s, but for the first three, which take 10: 15 s to settle are two of them, the third is counted."""
    now, durations = [0.0], iter([10, 10, 10, 1, 1, 1, 1, 1])
    monkeypatch.setattr(sidebyside.time, "perf_counter", lambda: now[0])

    def step():
        now[0] += next(durations)

    assert per_second(step, seconds=14, settle_s=15) == 5 / 14


def test_numbers_are_kept_with_goals_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(sidebyside, "OUT", tmp_path)

    file = keep("serving", {"rounds": 5}, goals=[Goal("pool", Ratio(0.5, 0.4, 0.6), 0.95)], rows=[{"ms": 1.5}])

    kept = json.loads(file.read_text())
    assert kept["goals"][0] == {
        "what": "pool",
        "ratio": {"of_medians": 0.5, "lowest": 0.4, "highest": 0.6},
        "bound": 0.95,
        "at_least": True,
        "met": False,
    }
    assert kept["settings"] == {"rounds": 5} and kept["rows"] == [{"ms": 1.5}] and kept["machine"]["cores"] >= 1
