"""Gets errands done: sends each to the replica that will answer first, and to another when that one dies, hangs or is
late."""

from __future__ import annotations

import logging
import pickle
import time

import ray
from ray.exceptions import RayError, RayTaskError

from actors.errors import KnowledgeError, TeacherLostError
from actors.policies.balance import Router
from actors.policies.failure import Decision, after_loss
from actors.policies.lateness import patience
from actors.pool.errand import Attempt, Errand
from actors.pool.exchange import Exchange
from actors.pool.members import Members, PoolHandle, Replica
from actors.pool.replica import Reply
from actors.serving import ServingLog

logger = logging.getLogger(__name__)

CAUSES_NAMED = 3


class Dispatch:
    """Of one client. `strays`: attempts whose errand somebody else has done, kept until they end."""

    def __init__(self, handle: PoolHandle, rank: int, log: ServingLog) -> None:
        self._most_s = handle.answer_timeout_s
        self._log = log
        self._teachers_of = handle.teachers_of
        self._exchange = Exchange(handle, rank)
        self._routers = {host: Router(rank) for host in handle.hosts.values()}
        self._lost: dict[Replica, str] = {}
        self._under_way: set[Errand] = set()
        self._strays: list[tuple[Attempt, int]] = []
        self._meet(handle.members)

    def replicas(self, host: str) -> int:
        return len(self._routers[host].loads)

    def waited(self, host: str, seconds: float) -> None:
        self._exchange.waited(host, seconds)

    def send(self, errand: Errand) -> None:
        """Asks somebody who is not asked already; nobody, where there is none."""
        self._under_way.add(errand)
        router = self._routers[errand.host]
        number = router.choose(errand.batches, {attempt.replica.number for attempt in errand.attempts})
        if number is None:
            return
        now_s = time.monotonic()
        actor = self._exchange.members.serving[errand.host][number]
        own_slow_s, peers_slow_s = router.slow_s(number)
        ahead = router.sent(number, errand.batches)
        waits = patience(own_slow_s, peers_slow_s, ahead, self._most_s)
        parcels = [parcel.sent() for parcel in errand.parcels]
        reference = actor.answer.remote(pickle.dumps(errand.asked, pickle.HIGHEST_PROTOCOL), *parcels)
        replica = Replica(errand.host, number)
        errand.attempts.append(Attempt(replica, reference, now_s, now_s + waits.late_s, now_s + waits.lost_s))

    def finish(self, errand: Errand) -> Reply:
        """Waits until somebody has answered."""
        unserved_s = 0.0
        while not errand.reply:
            if errand.attempts:
                self._await_answer(errand)
                unserved_s = 0.0
            else:
                start_s = time.monotonic()
                self._await_replica(errand, unserved_s)
                unserved_s += time.monotonic() - start_s
        return errand.reply[0]

    def look_round(self) -> None:
        """What has happened beside the answers that are waited for; never waits itself."""
        if news := self._exchange.news():
            self._meet(news)
        self._fetch()
        for stray, batches in list(self._strays):
            if stray.replica in self._lost:
                continue
            if ended([stray.reference]):
                self._strays.remove((stray, batches))
                self._settle_stray(stray, batches)
            elif stray.lost_s <= time.monotonic():
                self._lose(stray, _silence(stray))

    def _fetch(self) -> None:
        """Answers of other nodes travel here from now on, not from when they are waited for."""
        references = [attempt.reference for errand in self._under_way for attempt in errand.attempts]
        if references:
            ray.wait(references, num_returns=len(references), timeout=0)

    def _await_answer(self, errand: Errand) -> None:
        references = [attempt.reference for attempt in errand.attempts]
        timeout_s = max(0.0, errand.decision_s - time.monotonic())
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        ready = ready or ended(references)
        if ready:
            self._take(errand, errand.attempts[references.index(ready[0])])
        elif lost := errand.lost_by(time.monotonic()):
            self._lose(lost[0], _silence(lost[0]))
        else:
            errand.hedged = True
            self.send(errand)
        self.look_round()

    def _await_replica(self, errand: Errand, unserved_s: float) -> None:
        if errand.host in self._exchange.members.failed or unserved_s > self._most_s:
            text = f"teacher {errand.host!r} has no replica left; {self._causes(errand.host)}"
            raise TeacherLostError(text, self._teachers_of(errand.host))
        if news := self._exchange.awaited_news():
            self._meet(news)

    def _take(self, errand: Errand, attempt: Attempt) -> None:
        try:
            reply = Reply(*ray.get(attempt.reference))
        except RayTaskError as error:
            if isinstance(error.cause, KnowledgeError):
                raise error.cause from error
            text = f"teacher {errand.host!r} failed: {error}"
            raise TeacherLostError(text, self._teachers_of(errand.host)) from error
        except RayError as error:
            self._lose(attempt, _death(error))
            return
        self._routers[errand.host].answered(attempt.replica.number, errand.batches, reply.service_s, reply.present)
        errand.reply.append(reply)
        self._under_way.discard(errand)
        self._strays += [(other, errand.batches) for other in errand.attempts if other is not attempt]
        for served in reply.served(attempt.replica.number, errand.tries + len(errand.attempts) - 1):
            self._log.answer(served)

    def _settle_stray(self, stray: Attempt, batches: int) -> None:
        try:
            reply = Reply(*ray.get(stray.reference))
        except RayError as error:
            self._lose(stray, _death(error))
            return
        self._routers[stray.replica.host].answered(stray.replica.number, batches, reply.service_s, reply.present)

    def _lose(self, attempt: Attempt, cause: str) -> None:
        """Nobody is asked there any more; what it was asked goes to others."""
        replica = attempt.replica
        if replica not in self._lost:
            logger.warning("teacher %s replica %d: %s", replica.host, replica.number, cause)
            self._lost[replica] = cause
            self._exchange.lost(replica, cause)
        self._turn_to_others()

    def _meet(self, members: Members) -> None:
        self._lost = {**members.lost, **self._lost}
        self._turn_to_others()

    def _turn_to_others(self) -> None:
        serving = self._exchange.members.serving
        for host, router in self._routers.items():
            router.keep(number for number in serving.get(host, {}) if Replica(host, number) not in self._lost)
        self._strays = [stray for stray in self._strays if stray[0].replica not in self._lost]
        for errand in list(self._under_way):
            errand.give_up(self._lost, time.monotonic())
            if not errand.attempts:
                self._again(errand)

    def _again(self, errand: Errand) -> None:
        decision = after_loss(errand.accidents, len(self._routers[errand.host].loads))
        if decision is Decision.ABORT:
            raise TeacherLostError(
                f"teacher {errand.host!r}: {errand.tries} replicas were lost over one request; "
                f"{self._causes(errand.host)}",
                self._teachers_of(errand.host),
            )
        if decision is Decision.REROUTE:
            errand.hedged = False
            self.send(errand)

    def _causes(self, host: str) -> str:
        lost = [f"replica {replica.number}: {cause}" for replica, cause in self._lost.items() if replica.host == host]
        failed = self._exchange.members.failed.get(host)
        return "; ".join([*lost[-CAUSES_NAMED:], *([failed] if failed else [])]) or "no replica has come"


def ended(references: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """Those that are answered, be it on another node from which the answer has not come yet."""
    return ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)[0]


def _silence(attempt: Attempt) -> str:
    return f"no answer within {time.monotonic() - attempt.asked_s:.1f} s"


def _death(error: RayError) -> str:
    return str(error).splitlines()[0]
