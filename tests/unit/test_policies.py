"""Pure deciders: what becomes of lost requests and killed workers, who is late, who is asked, how far ahead."""

from collections import Counter

import pytest

from actors.policies.balance import Router
from actors.policies.failure import Decision, after_loss, may_restart, may_start_replica
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
    errand = Errand("t", 1, attempts=[Attempt(one, None, 0.0, 1.0, 2.0) for one in replicas])
    for number, now_s in ((1, 10.0), (2, 11.9), (2, 15.0), (3, 15.1)):
        errand.give_up(replicas[:number], now_s)
    assert (errand.tries, errand.accidents) == (3, 2) and [one.replica for one in errand.attempts] == replicas[3:]


def test_what_fails_to_load_three_times_in_a_row_is_not_started_again():
    assert [may_start_replica(failures) for failures in range(5)] == [True, True, True, False, False]


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


def served(router: Router, speeds: dict[int, float], requests: int, in_flight: int) -> Counter:
    """Who answers, when so many requests are always under way and replica n takes `speeds[n]` seconds each."""
    clock, free_at, under_way, answers = 0.0, dict.fromkeys(speeds, 0.0), [], Counter()
    for _ in range(requests):
        while len(under_way) >= in_flight:
            clock, number = min(under_way)
            under_way.remove((clock, number))
            router.answered(number, 1, speeds[number], sum(other == number for _, other in under_way))
        number = router.choose(1)
        assert number is not None
        router.sent(number, 1)
        free_at[number] = max(clock, free_at[number]) + speeds[number]
        under_way.append((free_at[number], number))
        answers[number] += 1
    return answers


def router_of(*numbers: int, turn: int = 0) -> Router:
    router = Router(turn)
    router.keep(numbers)
    return router


def test_a_replica_twice_as_slow_gets_half_of_the_work():
    answers = served(router_of(0, 1), {0: 0.05, 1: 0.1}, requests=600, in_flight=4)
    assert answers[0] / answers[1] == pytest.approx(2, rel=0.1)


def test_equal_replicas_share_evenly():
    answers = served(router_of(0, 1, 2), dict.fromkeys(range(3), 0.05), requests=600, in_flight=6)
    assert max(answers.values()) - min(answers.values()) <= 6


def test_clients_do_not_march_in_step():
    first = [router_of(*range(4), turn=rank).choose(1) for rank in range(4)]
    assert sorted(map(int, first)) == [0, 1, 2, 3]


def test_what_others_have_asked_for_counts():
    router = router_of(0, 1)
    for number, present in ((0, 5), (1, 0)):
        router.sent(number, 1)
        router.answered(number, 1, 0.05, present)
    assert [router.choose(1) for _ in range(4)] == [1, 1, 1, 1]


def test_what_others_had_asked_for_is_not_believed_for_ever():
    router = router_of(0, 1)
    for number, present in ((0, 12), (1, 0)):
        router.sent(number, 1)
        router.answered(number, 1, 0.05, present)
    asked = served(router, {0: 0.05, 1: 0.05}, requests=100, in_flight=6)
    assert 30 < asked[0] < 70


def test_one_hiccup_does_not_make_a_replica_patiently_waited_for():
    router = router_of(0)
    for seconds in [*[0.05] * 20, 8.0, *[0.06] * 20]:
        router.sent(0, 1)
        router.answered(0, 1, seconds, 0)
    assert router.slow_s(0) == (0.06, 0.06)


def test_a_newcomer_is_asked_and_one_that_left_is_not():
    router = router_of(0, 1)
    served(router, {0: 0.05, 1: 0.05}, requests=20, in_flight=2)
    router.keep([1, 2])
    answers = served(router, {1: 0.05, 2: 0.05}, requests=100, in_flight=4)
    assert set(answers) == {1, 2} and min(answers.values()) > 40
    router.answered(0, 1, 0.05, 0)


def test_shunned_replicas_are_not_chosen():
    router = router_of(0, 1)
    assert {router.choose(1, shunned={0}) for _ in range(4)} == {1}
    assert router.choose(1, shunned={0, 1}) is None and router_of().choose(1) is None


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
