"""What `actors.pool.dispatch`, `exchange` and `hosts` ask of Ray, on a clock that is moved by waiting: replicas that
take a time that is given, hang, die or fail, and a real controller."""

import pickle
from math import inf

import numpy as np
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.knowledge import TeacherRequest
from actors.pool.controller import PoolController
from actors.pool.errand import Errand
from actors.pool.members import Members, PoolHandle, Replica
from actors.pool.replica import Asked

WHERE = ("pool", "tests")
START_S = 1000.0
TICK_S = 1e-6


class Call:
    """One under way: what comes of it, when, and whether on another node, from which it has to travel."""

    def __init__(self, outcome, ready_s: float, elsewhere: bool = False) -> None:
        self.outcome, self.ready_s, self.elsewhere = outcome, ready_s, elsewhere


class Remote:
    """A method of an actor."""

    def __init__(self, call) -> None:
        self.remote = call

    def options(self, **given) -> "Remote":
        return self


class FakeReplica:
    """Answers in order, each batch after `seconds`; `elsewhere`: what it answers never gets here by waiting alone."""

    def __init__(self, cluster: "FakeCluster", seconds: float, fails: Exception | None, elsewhere: bool) -> None:
        self._cluster, self.seconds, self._fails, self._elsewhere = cluster, seconds, fails, elsewhere
        self._free_s = 0.0
        self.calls: list[Call] = []
        self.answer = Remote(self._answer)
        self.state = Remote(self._state)
        self.is_stopped = False

    def _state(self) -> Call:
        judged = sum(call.ready_s <= self._cluster.now_s for call in self.calls)
        return Call((0, 0.0, judged), inf if self.is_stopped else self._cluster.now_s + 0.001)

    def _answer(self, packed: bytes) -> Call:
        asked = pickle.loads(packed)
        start_s = max(self._cluster.now_s, self._free_s)
        self._free_s = start_s + self.seconds * len(asked)
        answers = [[{"teacher": "t", "tensor:logits": one.ids} for _ in one.requests] for one in asked]
        spans = [[(start_s, self.seconds)] for _ in asked]
        reply = (answers, spans, start_s - self._cluster.now_s, 0)
        self.calls.append(Call(self._fails or reply, self._free_s, self._elsewhere))
        return self.calls[-1]

    def die(self) -> None:
        for call in self.calls:
            if call.ready_s > self._cluster.now_s:
                call.outcome, call.ready_s = RayActorError(error_msg="killed"), self._cluster.now_s
        self._fails, self.seconds = RayActorError(error_msg="killed"), 0.0


class FakeController:
    def __init__(self, cluster: "FakeCluster") -> None:
        self._cluster, self.real, self.gone = cluster, PoolController({}), False
        self.exchange = Remote(self._exchange)

    def _exchange(self, *told) -> Call:
        outcome = RayActorError(error_msg="gone") if self.gone else self.real.exchange(*told)
        return Call(outcome, self._cluster.now_s + 0.001)


class FakeCluster:
    """Stands for the modules `ray` and `time`."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.controller = FakeController(self)
        self.replicas: dict[int, FakeReplica] = {}
        self.killed: list = []
        self._version = 0

    def kill(self, actor) -> None:
        self.killed.append(actor)

    def add(self, number: int, seconds: float = 0.05, fails: Exception | None = None, elsewhere: bool = False) -> None:
        self.replicas[number] = FakeReplica(self, seconds, fails, elsewhere)

    def publish(self, *numbers: int, failed: str = "", lost: dict[Replica, str] | None = None) -> Members:
        self._version += 1
        serving = {"t": {number: self.replicas[number] for number in numbers}}
        members = Members(self._version, serving, lost or {}, failed={"t": failed} if failed else {})
        self.controller.real.publish(members)
        return members

    def handle(self, *numbers: int) -> PoolHandle:
        return PoolHandle(WHERE, self.publish(*numbers), {"t": "t"}, "derived", 300.0)

    def waited_s(self) -> float:
        return self.now_s - START_S

    def get_actor(self, name: str, namespace: str) -> FakeController:
        assert (name, namespace) == WHERE
        return self.controller

    def wait(self, calls, num_returns=1, timeout=None, fetch_local=True):
        def ready() -> list[Call]:
            return [call for call in calls if call.ready_s <= self.now_s and not (fetch_local and call.elsewhere)]

        coming = sorted(call.ready_s for call in calls if not (fetch_local and call.elsewhere))
        if len(ready()) < num_returns:
            next_s = coming[num_returns - 1] if len(coming) >= num_returns else inf
            self.now_s = min(max(self.now_s, next_s), self.now_s + timeout + TICK_S)
        found = ready()[:num_returns]
        return found, [call for call in calls if call not in found]

    def get(self, call, timeout=inf):
        if call.ready_s > self.now_s + timeout:
            self.now_s += timeout
            raise GetTimeoutError("not yet")
        self.now_s = max(self.now_s, call.ready_s)
        if isinstance(call.outcome, Exception):
            raise call.outcome
        return call.outcome

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def errand(opened: int, batches: int = 1) -> Errand:
    ids = np.arange(2)
    return Errand("t", opened, asked=[Asked(ids, ids, (TeacherRequest("t"),)) for _ in range(batches)])


def raised_there(cause: Exception) -> RayTaskError:
    return RayTaskError("answer", f"Traceback\n{type(cause).__name__}: {cause}", cause)
