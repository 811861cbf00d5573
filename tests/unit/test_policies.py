"""What becomes of a failed request, and who is asked next."""

import pytest

from actors.policies import MOST_RESTARTS, Decision, Failure, after_failure, choose_replica, may_restart


@pytest.mark.parametrize("failure", [Failure.DIED, Failure.SILENT])
def test_a_lost_replica_costs_nothing_while_another_lives(failure):
    assert after_failure(failure, replicas_left=1) is Decision.REROUTE
    assert after_failure(failure, replicas_left=0) is Decision.ABORT


def test_an_error_of_the_teachers_own_code_ends_the_run_however_many_live():
    assert after_failure(Failure.RAISED, replicas_left=5) is Decision.ABORT


def test_the_replica_with_the_least_to_do_is_asked():
    assert choose_replica([4, 7, 9], {4: 2, 7: 1, 9: 2}, cursor=0) == 7
    assert choose_replica([4, 7, 9], {4: 2, 7: 1}, cursor=1) == 9, "who is not listed has nothing to do"
    assert choose_replica([4], {4: 100}, cursor=3) == 4


def test_ties_go_round():
    assert [choose_replica([4, 7, 9], {}, cursor) for cursor in range(5)] == [4, 7, 9, 4, 7]
    assert choose_replica([4, 7, 9], {4: 0, 7: 3, 9: 0}, cursor=1) == 9, "from the cursor on, past the busy one"


def test_turns_share_the_work_evenly():
    outstanding = {0: 0, 1: 0, 2: 0}
    for turn in range(30):
        outstanding[choose_replica([0, 1, 2], outstanding, turn)] += 1
    assert outstanding == {0: 10, 1: 10, 2: 10}


def test_a_group_starts_again_only_for_a_death_and_not_for_ever():
    assert may_restart(workers_killed=1, only_echoes=False, restarts=0)
    assert may_restart(workers_killed=0, only_echoes=True, restarts=MOST_RESTARTS - 1)
    assert not may_restart(workers_killed=0, only_echoes=False, restarts=0), "its own error would come again"
    assert not may_restart(workers_killed=2, only_echoes=True, restarts=MOST_RESTARTS)
