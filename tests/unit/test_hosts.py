"""The replicas of a host as their owner keeps them: who is started, when again, who counts as failed, who may go."""

from math import inf

import pytest
from ray.exceptions import RayActorError

import actors.pool.hosts
from actors.pool.chronicle import Chronicle
from actors.pool.hosts import Host
from actors.specs import DataSpec, ImportSpec, ModelSpec, TeacherSpec
from tests.unit.fake_cluster import Call, FakeCluster, Remote

LOADS_IN_S = 2.0
DIGITS = ImportSpec("actors.datasets:Digits")


class Actor:
    """Loads for a while, then says how it is."""

    def __init__(self, cluster: FakeCluster, fails: bool) -> None:
        self._cluster, self.present, self.is_dead = cluster, 0, False
        self.loading = Call(RayActorError(error_msg="no\nmemory") if fails else 1, cluster.now_s + LOADS_IN_S)
        self.pid = Remote(lambda: self.loading)
        self.state = Remote(self._state)

    def _state(self) -> Call:
        return Call(RayActorError(error_msg="dead") if self.is_dead else (self.present, 0.0, 0), self._cluster.now_s)


@pytest.fixture
def cluster(monkeypatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(actors.pool.hosts, "ray", fake)
    monkeypatch.setattr(actors.pool.hosts, "time", fake)
    return fake


class Owned(Host):
    """`started`: all of its actors; `fails`: whether the next cannot load."""

    def __init__(self, cluster: FakeCluster, replicas: int, most: int | None = None) -> None:
        spec = TeacherSpec("t", ModelSpec(DIGITS), "nowhere", replicas=replicas, most_replicas=most)
        super().__init__((spec,), DataSpec(DIGITS, DIGITS, slices={}), None, Chronicle())
        self.cluster, self.started, self.fails = cluster, [], False

    def _new_actor(self) -> Actor:
        self.started.append(Actor(self.cluster, self.fails))
        return self.started[-1]

    def tended(self, seconds: float, tick_s: float = 0.25) -> None:
        end_s = self.cluster.now_s + seconds
        while self.cluster.now_s < end_s:
            self.look()
            self.welcome()
            self.fill()
            self.cluster.sleep(tick_s)


def test_what_cannot_load_is_tried_again_after_ever_longer_pauses_while_another_serves(cluster):
    host = Owned(cluster, 1)
    host.tended(3.0)
    host.fails = True
    host.wish(1)
    host.tended(30.0)
    assert len(host.started) - 1 == 5, "at 0, after 2+1, 2+2, 2+4 and 2+8 s more"
    assert host.failed is None and host.status.trouble == "memory" and host.status.serving == 1
    host.fails = False
    host.tended(20.0)
    assert host.status.serving == 2 and not host.status.trouble


def test_failures_beside_others_do_not_condemn_whoever_takes_the_place_of_the_last(cluster):
    host = Owned(cluster, 1)
    host.tended(3.0)
    host.fails = True
    host.wish(1)
    host.tended(20.0)
    host.fails = False
    host.lose(0, "killed")
    host.tended(3.0)
    assert host.failed is None and host.status.serving == 2 and not host.status.trouble


def test_where_nobody_serves_the_third_failure_is_the_last(cluster):
    host = Owned(cluster, 1)
    host.fails = True
    host.tended(60.0)
    assert len(host.started) == 3 and host.failed == "no new one can be started: no\nmemory"


def test_those_who_fail_together_have_failed_once(cluster):
    host = Owned(cluster, 5)
    host.fails = True
    host.tended(2.5)
    host.fails = False
    assert host.failed is None
    host.tended(4.0)
    assert host.status.serving == 5


def test_one_that_leaves_is_ended_when_it_has_said_that_nothing_is_left(cluster):
    host = Owned(cluster, 2)
    host.tended(5.0)
    host.wish(-1)
    leaving = host.started[1]
    host.tended(0.5)
    leaving.present = 3  # asked by somebody who had not heard yet
    host.tended(20.0)
    assert leaving not in cluster.killed
    leaving.present = 0
    host.tended(3.0)
    assert cluster.killed == [leaving]


def test_one_that_leaves_and_never_finishes_is_ended_after_a_minute(cluster):
    host = Owned(cluster, 2)
    host.tended(5.0)
    host.wish(-1)
    host.started[1].present = 3
    host.tended(50.0)
    assert not cluster.killed
    host.tended(20.0)
    assert cluster.killed == [host.started[1]]


def test_one_that_died_is_noticed_and_replaced(cluster):
    host = Owned(cluster, 1)
    host.tended(5.0)
    host.started[0].is_dead = True
    host.tended(6.0)
    assert len(host.started) == 2 and host.status.serving == 1 and [gone.number for gone in host.lost] == [0]


@pytest.mark.parametrize("fails", [False, True])
def test_it_does_not_grow_while_one_starts_or_cannot(cluster, fails):
    host = Owned(cluster, 1, most=8)
    host.tended(3.0)
    host.fails = fails
    for _ in range(40):
        host.scale(1.0)
        host.tended(0.0)
        host.fill()
        if fails:
            host.welcome()
            cluster.sleep(0.25)
    assert host.status.wanted == 2


def test_one_that_starts_is_let_go_when_nobody_waits_any_more(cluster):
    host = Owned(cluster, 1, most=2)
    host.tended(3.0)
    for _ in range(4):
        host.scale(1.0)
    host.fill()
    host.started[1].loading.ready_s = inf
    for _ in range(41):
        host.scale(0.0)
    host.fill()
    assert host.status.wanted == 1 and cluster.killed == [host.started[1]]
