"""Requests find somebody who answers, whoever hangs, dies, fails or comes; on a clock and a cluster of our own."""

import pickle

import pytest

import actors.pool.dispatch
import actors.pool.exchange
from actors.errors import KnowledgeError, TeacherLostError
from actors.pool.dispatch import Dispatch
from actors.pool.members import Replica
from tests.unit.fake_cluster import FakeCluster, FakeController, errand, raised_there


@pytest.fixture
def cluster(monkeypatch) -> FakeCluster:
    fake = FakeCluster()
    for module in (actors.pool.dispatch, actors.pool.exchange):
        monkeypatch.setattr(module, "ray", fake)
        monkeypatch.setattr(module, "time", fake)
    return fake


def dispatch_to(cluster: FakeCluster, *numbers: int) -> Dispatch:
    return Dispatch(cluster.handle(*numbers), 0)


def asked(dispatch: Dispatch, first: int, count: int) -> list:
    """So many requests, all under way."""
    errands = [errand(first + number) for number in range(count)]
    for one in errands:
        dispatch.send(one)
    return errands


def finished(dispatch: Dispatch, errands: list) -> None:
    for one in errands:
        dispatch.finish(one)


def calls(cluster: FakeCluster) -> dict[int, int]:
    return {number: len(replica.calls) for number, replica in cluster.replicas.items()}


def test_answers_that_come_while_another_is_awaited_are_taken(cluster):
    cluster.add(0, 0.2)
    cluster.add(1, 0.1)
    dispatch = dispatch_to(cluster, 0, 1)
    slow, fast = asked(dispatch, 0, 2)
    dispatch.finish(slow)
    assert fast.reply and cluster.waited_s() == pytest.approx(0.2, abs=1e-3)


def test_the_first_request_to_one_that_hangs_is_late_by_what_the_others_have_shown_since(cluster):
    cluster.add(0, 1e6)
    cluster.add(1, 0.05)
    dispatch = dispatch_to(cluster, 0, 1)
    first, second = asked(dispatch, 0, 2)
    dispatch.finish(first)
    assert cluster.waited_s() == pytest.approx(0.25 + 0.05, abs=1e-3) and second.reply
    assert first.tries == 0 and dispatch.replicas("t") == 2, "late is not lost"


def test_one_that_hangs_later_is_lost_by_its_own_history_and_others_learn_of_it(cluster):
    cluster.add(0, 0.5)
    dispatch = dispatch_to(cluster, 0)
    finished(dispatch, asked(dispatch, 0, 4))
    cluster.replicas[0].seconds, cluster.replicas[0].is_stopped = 1e6, True
    cluster.add(1, 0.5)
    cluster.publish(0, 1)
    [hanging] = asked(dispatch, 9, 1)
    start_s = cluster.now_s
    dispatch.finish(hanging)
    assert cluster.now_s - start_s < 3.0, "the newcomer was asked"
    cluster.sleep(start_s + 20 * 0.5 - 0.1 - cluster.now_s)
    dispatch.look_round()
    assert not cluster.controller.real.collect({})[1].lost
    cluster.sleep(0.2)
    dispatch.look_round()
    _, told = cluster.controller.real.collect({})
    assert [(gone.number, cause.split(" within")[0]) for gone, cause in told.lost.items()] == [(0, "no answer")]


def test_a_straggler_is_asked_again_elsewhere_and_its_answer_settles_its_account(cluster):
    for number in (0, 1):
        cluster.add(number, 0.1)
    dispatch = dispatch_to(cluster, 0, 1)
    finished(dispatch, asked(dispatch, 0, 20))
    cluster.replicas[0].seconds = 2.0
    before, start_s = calls(cluster), cluster.now_s
    errands = asked(dispatch, 30, 2)
    finished(dispatch, errands)
    assert cluster.now_s - start_s == pytest.approx(0.3 + 0.1, abs=1e-3)
    assert {number: count - before[number] for number, count in calls(cluster).items()} == {0: 1, 1: 2}
    cluster.sleep(3.0)
    dispatch.look_round()
    assert dispatch._routers["t"].loads[0].own == 0 and dispatch.replicas("t") == 2


def test_what_a_dead_replica_was_asked_goes_to_the_others(cluster):
    for number in range(3):
        cluster.add(number, 0.1)
    dispatch = dispatch_to(cluster, 0, 1, 2)
    errands = asked(dispatch, 0, 6)
    cluster.replicas[1].die()
    finished(dispatch, errands)
    assert [one.tries for one in errands].count(1) == 2 and dispatch.replicas("t") == 2


def test_replicas_that_die_one_after_the_other_over_a_request_end_the_run(cluster):
    for number in range(4):
        cluster.add(number, 60.0)
    dispatch = dispatch_to(cluster, 0, 1, 2, 3)
    [fatal] = asked(dispatch, 0, 1)
    for _ in range(3):
        cluster.replicas[fatal.attempts[0].replica.number].die()
        dispatch.look_round()
        cluster.sleep(3.0)
    with pytest.raises(TeacherLostError, match="'t': 3 replicas were lost over one request; replica"):
        dispatch.finish(fatal)


def test_a_request_that_nobody_can_take_waits_for_whoever_comes(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    cluster.replicas[0].die()
    [waiting] = asked(dispatch, 0, 1)
    dispatch.look_round()
    assert not waiting.attempts
    cluster.add(1, 0.1)
    cluster.publish(1)
    dispatch.finish(waiting)
    assert calls(cluster) == {0: 1, 1: 1}


def test_a_replica_that_never_comes_is_waited_for_as_long_as_an_answer(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    cluster.replicas[0].die()
    with pytest.raises(TeacherLostError, match="'t' has no replica left; replica 0: killed"):
        finished(dispatch, asked(dispatch, 0, 1))
    assert cluster.waited_s() == pytest.approx(300, abs=1)


def test_a_host_without_hope_ends_the_run_with_its_causes(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    cluster.replicas[0].die()
    cluster.publish(failed="no new one can be started: no such file")
    with pytest.raises(TeacherLostError, match=r"'t' has no replica left; replica 0: .*killed.*; no new .* such file"):
        finished(dispatch, asked(dispatch, 0, 1))


def test_one_whose_queue_is_long_is_not_lost_while_it_works(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    finished(dispatch, asked(dispatch, 0, 4))
    others = [errand(100 + number) for number in range(200)]
    for one in others:  # of other workers: this one does not know of them
        cluster.replicas[0].answer.remote(pickle.dumps(one.asked))
    [late] = asked(dispatch, 9, 1)
    start_s = cluster.now_s
    dispatch.finish(late)
    assert cluster.now_s - start_s == pytest.approx(20.1, abs=0.1) and dispatch.replicas("t") == 1


def test_one_that_says_it_lives_but_judges_nothing_is_lost(cluster):
    cluster.add(0, 0.5)
    dispatch = dispatch_to(cluster, 0)
    finished(dispatch, asked(dispatch, 0, 4))
    cluster.replicas[0].seconds = 1e6
    [hanging] = asked(dispatch, 9, 1)
    start_s = cluster.now_s
    for _ in range(24):
        cluster.sleep(1.0)
        dispatch.look_round()
        if hanging.attempts:
            dispatch._await_answer(hanging)
    assert not hanging.attempts and dispatch.replicas("t") == 0 and cluster.now_s - start_s < 60


def test_busy_replicas_are_not_asked_about_what_others_are_late_with(cluster):
    for number in (0, 1):
        cluster.add(number, 0.1)
    dispatch = dispatch_to(cluster, 0, 1)
    finished(dispatch, asked(dispatch, 0, 20))
    for number in (0, 1):
        for one in range(30):
            cluster.replicas[number].answer.remote(pickle.dumps(errand(one).asked))
    before = sum(calls(cluster).values())
    finished(dispatch, asked(dispatch, 100, 8))
    assert sum(calls(cluster).values()) - before <= 9


def test_who_usually_waits_behind_others_asks_nobody_else_meanwhile(cluster):
    for number in (0, 1):
        cluster.add(number, 0.1)
    dispatch = dispatch_to(cluster, 0, 1)
    asked_again = []
    for turn in range(30):
        for replica in cluster.replicas.values():
            replica.answer.remote(pickle.dumps(errand(1000, batches=10).asked))
        [mine] = asked(dispatch, turn, 1)
        dispatch.look_round()
        dispatch.finish(mine)
        asked_again.append(sum(one.retries for one in mine.served))
    assert sum(asked_again) <= 4 and not sum(asked_again[10:])


def test_the_wait_behind_others_is_counted_for_each_batch_of_a_call(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    cluster.replicas[0].answer.remote(pickle.dumps(errand(1000, batches=10).asked))
    mine = errand(0, batches=2)
    dispatch.send(mine)
    dispatch.finish(mine)
    assert dispatch._routers["t"].slow_s(0)[0] == pytest.approx((1.0 + 2 * 0.1) / 2)


def test_a_third_is_asked_where_two_hang(cluster):
    for number in range(3):
        cluster.add(number, 0.1)
    dispatch = dispatch_to(cluster, 0, 1, 2)
    finished(dispatch, asked(dispatch, 0, 30))
    for number in (0, 1):
        cluster.replicas[number].seconds, cluster.replicas[number].is_stopped = 1e6, True
    errands = asked(dispatch, 50, 3)
    start_s = cluster.now_s
    finished(dispatch, errands)
    assert cluster.now_s - start_s < 3.0


def test_waits_are_told_while_they_last(cluster):
    cluster.add(0, 10.0)
    dispatch = dispatch_to(cluster, 0)
    [slow] = asked(dispatch, 0, 1)
    told = []
    real = cluster.controller.real.exchange
    cluster.controller.real.exchange = lambda rank, version, waited, lost: (
        told.append(sum(waited.values())) or real(rank, version, waited, lost)
    )
    dispatch.finish(slow)
    assert len(told) >= 4 and sum(told) > 7.0


def test_an_answer_that_lies_on_another_node_is_taken_not_asked_for_again(cluster):
    cluster.add(0, 0.1, elsewhere=True)
    cluster.add(1, 0.1, elsewhere=True)
    dispatch = dispatch_to(cluster, 0, 1)
    for number in range(4):
        finished(dispatch, asked(dispatch, number, 1))
    assert sum(calls(cluster).values()) == 4


def test_an_error_of_the_teachers_code_is_told_when_it_is_its_turn(cluster):
    cluster.add(0, 0.1, fails=raised_there(IndexError("no such tap")))
    dispatch = dispatch_to(cluster, 0)
    [failing] = asked(dispatch, 0, 1)
    cluster.sleep(1.0)
    dispatch.look_round()
    with pytest.raises(TeacherLostError, match=r"(?s)'t' failed: .*IndexError: no such tap"):
        dispatch.finish(failing)


def test_bad_knowledge_is_told_as_it_was_found(cluster):
    bad = KnowledgeError("'t' sent NaN")
    cluster.add(0, 0.1, fails=raised_there(bad))
    dispatch = dispatch_to(cluster, 0)
    with pytest.raises(KnowledgeError) as found:
        finished(dispatch, asked(dispatch, 0, 1))
    assert found.value is bad


def test_a_late_error_of_a_replica_is_not_its_death(cluster):
    cluster.add(0, 0.1)
    cluster.add(1, 0.1)
    dispatch = dispatch_to(cluster, 0, 1)
    finished(dispatch, asked(dispatch, 0, 20))
    cluster.replicas[0].seconds, cluster.replicas[0]._fails = 2.0, raised_there(IndexError(7))
    finished(dispatch, asked(dispatch, 30, 2))
    cluster.sleep(3.0)
    dispatch.look_round()
    assert dispatch.replicas("t") == 2 and dispatch._routers["t"].loads[0].own == 0


def test_one_that_leaves_answers_what_it_was_asked(cluster):
    for number in (0, 1):
        cluster.add(number, 1.0)
    dispatch = dispatch_to(cluster, 0, 1)
    errands = asked(dispatch, 0, 2)
    cluster.sleep(0.3)
    cluster.publish(1)
    for _ in range(2):
        dispatch.look_round()
        cluster.sleep(0.1)
    assert dispatch.replicas("t") == 1
    finished(dispatch, errands)
    assert calls(cluster) == {0: 1, 1: 1}


def test_whoever_waits_hears_what_others_have_found(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    finished(dispatch, asked(dispatch, 0, 2))
    cluster.replicas[0].seconds = 1e6
    [waiting] = asked(dispatch, 2, 1)
    cluster.add(1, 0.1)
    cluster.publish(1, lost={Replica("t", 0): "no answer, said another worker"})
    start_s = cluster.now_s
    dispatch.finish(waiting)
    assert cluster.now_s - start_s < 2.5


def test_whoever_takes_the_place_of_the_controller_is_found(cluster):
    cluster.add(0, 0.1)
    dispatch = dispatch_to(cluster, 0)
    cluster.controller.gone = True
    cluster.controller = FakeController(cluster)
    cluster.add(1, 0.1)
    cluster.publish(0, 1)
    for _ in range(6):
        cluster.sleep(0.3)
        dispatch.look_round()
    assert dispatch.replicas("t") == 2
