"""Pure deciders: what becomes of lost requests and killed workers, who is late, who is asked, how far ahead."""

from math import inf

import pytest

from actors.policies.failure import Decision, after_loss, may_restart, pause_before_start_s
from actors.policies.lateness import Patience, patience
from actors.policies.prefetching import CallSize, Window, batches_per_call
from actors.policies.scaling import TICKS_TO_GROW, TICKS_TO_SHRINK, Demand, change
from actors.pool.errand import Attempt, Errand
from actors.pool.members import Replica


@pytest.mark.parametrize(
    ("accidents", "left", "decision"),
    [
        (1, 2, Decision.REROUTE),
        (2, 1, Decision.REROUTE),
        (1, 0, Decision.WAIT),
        (3, 2, Decision.ABORT),
        (3, 0, Decision.ABORT),
    ],
)
def test_a_lost_request_goes_elsewhere_waits_or_has_killed_too_many(accidents, left, decision):
    assert after_loss(accidents, left) is decision


def test_replicas_lost_at_once_are_one_accident():
    replicas = [Replica("t", number) for number in range(4)]
    errand = Errand("t", 1, attempts=[Attempt(one, None, 0.0, 1) for one in replicas])
    for number, now_s in ((1, 10.0), (2, 11.9), (2, 15.0), (3, 15.1)):
        errand.give_up(replicas[:number], now_s)
    assert (errand.tries, errand.accidents) == (3, 2) and [one.replica for one in errand.attempts] == replicas[3:]


def test_what_fails_to_load_is_tried_again_ever_more_rarely_and_three_times_only_where_nobody_serves():
    assert [pause_before_start_s(failures, serving=1) for failures in range(5)] == [0, 1, 2, 4, 8]
    assert pause_before_start_s(2000, serving=1) == 60
    assert [pause_before_start_s(failures, serving=0) for failures in range(5)] == [0, 1, 2, inf, inf]


@pytest.mark.parametrize(
    ("killed", "only_echoes", "restarts", "again"),
    [
        (1, False, 0, True),
        (0, True, 0, True),
        (0, False, 0, False),
        (1, True, 3, False),
        (2, False, 2, True),
    ],
)
def test_a_group_starts_again_for_a_killed_worker_only_and_not_for_ever(killed, only_echoes, restarts, again):
    assert may_restart(killed, only_echoes, restarts) is again


def test_patience_comes_from_a_replicas_own_history():
    # 0.2 s a batch, 3 batches to answer: 0.6 s expected, late after three times as much, lost after twenty.
    assert patience(0.2, 9.0, 3, most_s=300) == Patience(pytest.approx(1.8), pytest.approx(12.0))
    assert patience(0.001, 0.001, 1, most_s=300) == Patience(0.25, 5.0), "not because a clock hiccups"
    assert patience(10.0, 10.0, 4, most_s=60) == Patience(60, 60), "nobody is waited for longer"


def test_a_replica_that_has_answered_nothing_yet_may_be_late_not_lost():
    assert patience(None, 0.2, 1, most_s=300) == Patience(pytest.approx(0.6), 300)
    assert patience(None, None, 1, most_s=300) == Patience(300, 300)


def test_the_window_grows_only_while_the_student_waits():
    window = Window(None)
    for _ in range(5):
        window.stepped(0.1, 0.05, 1000, liked=1)
    assert window.depth == 7
    for _ in range(5):
        window.stepped(0.1, 0.001, 1000, liked=1)
    assert window.depth == 7


def test_the_window_keeps_within_its_bytes():
    window = Window(None, budget_bytes=10_000)
    for _ in range(50):
        window.stepped(0.1, 0.05, 2_000, liked=1)
    assert window.depth == 5
    window.stepped(0.1, 0.05, 9_000, liked=1)
    assert window.depth == 2, "larger batches came"


def test_the_window_has_room_for_calls_of_several_batches():
    window = Window(None)
    for _ in range(20):
        window.stepped(0.1, 0.0, 1000, liked=4)
    assert window.depth == 4


def test_a_fixed_window_stays():
    window = Window(3)
    window.stepped(0.1, 0.1, 1000, liked=8)
    assert window.depth == 3


@pytest.mark.parametrize(
    ("calls", "step_s", "batches"),
    [(1, 0.060, 1), (3, 0.060, 3), (3, 0.200, 1), (1, 0.010, 6), (3, 0.010, 8), (3, None, 1)],
)
def test_about_one_call_is_made_in_sixty_milliseconds(calls, step_s, batches):
    assert batches_per_call(calls, step_s) == batches


def paced(step_s: float, ahead: int, replicas: int) -> CallSize:
    """After some steps of a student that is so far ahead."""
    size = CallSize()
    for _ in range(ahead):
        size.asked(3, replicas)
    for step in range(20):
        size.used(step * step_s)
        size.asked(3, replicas)
    return size


@pytest.mark.parametrize(
    ("ahead", "replicas", "batches", "liked"),
    [(1, 1, 1, 6), (3, 2, 2, 6), (6, 2, 3, 6), (8, 8, 1, 24), (24, 8, 3, 24), (24, 32, 1, 64)],
)
def test_a_call_waits_for_company_only_while_every_replica_has_one(ahead, replicas, batches, liked):
    size = paced(0.060, ahead, replicas)
    assert (size.batches, size.liked) == (batches, liked)


def test_the_size_of_calls_follows_the_pace_and_nothing_waits_in_vain():
    size = paced(0.060, ahead=10, replicas=2)
    assert size.batches == 3
    assert not size.used(5.0), "an evaluation came between"
    assert size.used(5.06), "nothing was asked for since the last"
    size.asked(3, replicas=2)
    assert size.batches == 3


def ticks(count: int, waited: float, busy: float) -> list[Demand]:
    return [Demand(waited, busy)] * count


def test_a_host_grows_when_students_wait_for_a_second():
    assert change(ticks(TICKS_TO_GROW, 0.3, 1.0), serving=1, fewest=1, most=4) == 1
    assert change(ticks(TICKS_TO_GROW - 1, 0.3, 1.0), serving=1, fewest=1, most=4) == 0
    assert change(ticks(TICKS_TO_GROW, 0.3, 1.0), serving=4, fewest=1, most=4) == 0
    assert change(ticks(60, 0.05, 0.9), serving=1, fewest=1, most=4) == 0


def test_a_host_shrinks_only_after_a_long_time_without_waits_and_when_the_others_can_do_the_work():
    assert change(ticks(TICKS_TO_SHRINK, 0.0, 0.2), serving=3, fewest=1, most=4) == -1
    assert change(ticks(TICKS_TO_SHRINK - 1, 0.0, 0.2), serving=3, fewest=1, most=4) == 0
    assert change(ticks(TICKS_TO_SHRINK, 0.02, 0.2), serving=3, fewest=1, most=4) == 0
    assert change(ticks(TICKS_TO_SHRINK, 0.0, 0.6), serving=2, fewest=1, most=4) == 0, "one would be busier than it can"
    assert change(ticks(TICKS_TO_SHRINK, 0.0, 0.0), serving=1, fewest=1, most=4) == 0


def test_a_steady_demand_settles():
    """A student that uses what 2.5 replicas give: neither two nor one more and one less for ever."""
    serving, recent, sizes = 1, [], []
    for _ in range(600):
        recent.append(Demand(max(0.0, 1 - serving / 2.5), min(1.0, 2.5 / serving)))
        by = change(recent, serving, 1, 8)
        serving, recent = serving + by, [] if by else recent
        sizes.append(serving)
    assert set(sizes[-500:]) == {3}
