"""Which replica is asked: the one that will answer first, by what each has shown."""

from collections import Counter

import pytest

from actors.policies.balance import Router


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


def test_a_wait_behind_others_counts_as_slow_once_it_is_usual():
    router = router_of(0)
    for pace_s in [*[0.05] * 30, *[4.0] * 8]:
        router.answered(0, 1, 0.05, 0, pace_s)
    assert router.slow_s(0) == (0.05, 0.05), "it was stopped once, and a queue waited"
    for _ in range(32):
        router.answered(0, 1, 0.05, 0, 0.4)
    assert router.slow_s(0) == (0.4, 0.4)


def test_a_newcomer_is_asked_and_one_that_left_is_not():
    router = router_of(0, 1)
    served(router, {0: 0.05, 1: 0.05}, requests=20, in_flight=2)
    router.keep([1, 2])
    answers = served(router, {1: 0.05, 2: 0.05}, requests=100, in_flight=4)
    assert set(answers) == {1, 2} and min(answers.values()) > 40
    router.answered(0, 1, 0.05, 0)


def test_those_who_owe_nothing_may_be_asked_as_well_the_fastest_first():
    router = router_of(0, 1, 2, 3)
    for number, seconds in ((0, 0.1), (1, 0.05), (2, 0.2)):
        answered(router, number, seconds, seconds)
    router.sent(3, 1)
    assert router.idle() == [1, 0, 2] and router.idle(shunned={1}) == [0, 2]
    assert router_of().idle() == [] and router_of().choose(1) is None


def answered(router: Router, number: int, *seconds: float) -> None:
    for service_s in seconds:
        router.sent(number, 1)
        router.answered(number, 1, service_s, 0)


def test_own_requests_are_not_taken_for_those_of_others():
    router = router_of(0)
    assert [router.sent(0, 1) for _ in range(3)] == [1, 2, 3]
    router.answered(0, 1, 0.05, present=2)
    assert router.sent(0, 1) == 3


def test_idle_equals_take_turns():
    router = router_of(0, 1, 2)
    assert [router.choose(1) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_one_quick_answer_does_not_make_a_replica_fast():
    router = router_of(0, 1)
    answered(router, 0, 0.1, 0.1, 0.01, 0.1, 0.1)
    answered(router, 1, 0.05, 0.05, 0.05)
    assert {router.choose(1) for _ in range(4)} == {1}


def test_a_slow_first_answer_is_forgiven():
    router = router_of(0, 1)
    answered(router, 0, 0.05, 0.05, 0.05)
    answered(router, 1, 5.0)
    assert {router.choose(1) for _ in range(2)} == {0, 1} and router.slow_s(1) == (5.0, 5.0)
    answered(router, 1, 0.05)
    assert {router.choose(1) for _ in range(2)} == {0, 1}


def test_who_stays_keeps_his_history():
    router = router_of(0, 1)
    answered(router, 0, 0.3, 0.3)
    router.sent(0, 2)
    router.keep([0, 2])
    assert router.slow_s(0) == (0.3, 0.3) and router.sent(0, 1) == 3
    assert router.slow_s(1) == (None, 0.3), "it left"


def test_a_newcomer_is_thought_as_fast_as_the_fastest():
    router = router_of(0, 1, 2)
    answered(router, 0, 0.05, 0.05)
    answered(router, 1, 1.0, 1.0)
    router.sent(0, 1)
    assert {router.choose(1) for _ in range(3)} == {2}
    router.sent(2, 2)
    assert {router.choose(1) for _ in range(3)} == {0}


def test_what_came_to_nothing_is_no_longer_outstanding():
    router = router_of(0)
    router.sent(0, 2)
    router.answered_nothing(0, 2)
    assert router.sent(0, 1) == 1 and router.slow_s(0) == (None, None)
    router.answered_nothing(7, 1)
