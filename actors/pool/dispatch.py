"""Gets errands done: sends each to the replica that will answer first, and to another when that one dies, hangs or is
late."""

from __future__ import annotations

import logging
import pickle
import time
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from actors.errors import KnowledgeError, TeacherLostError, first_line
from actors.policies.balance import Router
from actors.policies.failure import Decision, after_loss
from actors.policies.lateness import Patience, patience
from actors.pool.errand import Attempt, Errand
from actors.pool.exchange import Exchange
from actors.pool.members import Members, PoolHandle, Replica
from actors.pool.replica import CONTROL, Reply

logger = logging.getLogger(__name__)

CAUSES_NAMED = 3
LOOKS_ROUND_EACH_S = 1.0
SAYS_WITHIN_S = 3.0


class Dispatch:
    """Of one client. `strays`: attempts whose errand somebody else has done, kept until they end; `lived`: when one
    that was suspected said that it works, and how many batches it had judged by then."""

    def __init__(self, handle: PoolHandle, rank: int) -> None:
        self._most_s = handle.answer_timeout_s
        self._teachers_of = handle.teachers_of
        self._exchange = Exchange(handle, rank)
        self._routers = {host: Router(rank) for host in handle.hosts.values()}
        self._lost: dict[Replica, str] = {}
        self._under_way: set[Errand] = set()
        self._strays: list[tuple[Attempt, int]] = []
        self._lived: dict[Replica, tuple[float, int]] = {}
        self._meet(handle.members)

    def replicas(self, host: str) -> int:
        return len(self._routers[host].loads)

    def send(self, errand: Errand) -> None:
        """Asks the best; nobody, where there is none."""
        self._under_way.add(errand)
        number = self._routers[errand.host].choose(errand.batches)
        if number is not None:
            self._ask(errand, number)

    def _ask(self, errand: Errand, number: int) -> None:
        router = self._routers[errand.host]
        actor = self._exchange.members.serving[errand.host][number]
        ahead = router.sent(number, errand.batches)
        parcels = [parcel.sent() for parcel in errand.parcels]
        reference = actor.answer.remote(pickle.dumps(errand.asked, pickle.HIGHEST_PROTOCOL), *parcels)
        errand.attempts.append(Attempt(Replica(errand.host, number), reference, time.monotonic(), ahead))

    def finish(self, errand: Errand) -> Reply:
        """Waits until somebody has answered; raises what it came to where that is no answer."""
        unserved_s = 0.0
        while not (errand.reply or errand.failure):
            start_s, is_asked = time.monotonic(), bool(errand.attempts)
            if is_asked:
                self._await_answer(errand)
            else:
                self._await_replica(errand, unserved_s)
            waited_s = time.monotonic() - start_s
            unserved_s = 0.0 if is_asked else unserved_s + waited_s
            self._exchange.waited(errand.host, waited_s)
        if errand.failure:
            raise errand.failure[0]
        return errand.reply[0]

    def look_round(self) -> None:
        """Takes what is there, news and answers; waits for nobody but one that is suspected, for seconds at most."""
        if news := self._exchange.news():
            self._meet(news)
        asked = self._asked()
        # Asked about in this way, answers of other nodes travel here from now on, not from when they are waited for.
        ready = ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else []
        for errand, attempt in map(asked.__getitem__, ready):
            if errand in self._under_way and attempt in errand.attempts:
                self._take(errand, attempt)
        for stray, batches in list(self._strays):
            if stray.replica in self._lost:
                continue
            if ended([stray.reference]):
                self._strays.remove((stray, batches))
                self._settle_stray(stray, batches)
            elif self._lost_s(stray) <= time.monotonic():
                self._suspect(stray)

    def _asked(self) -> dict[ray.ObjectRef, tuple[Errand, Attempt]]:
        return {attempt.reference: (errand, attempt) for errand in self._under_way for attempt in errand.attempts}

    def _await_answer(self, errand: Errand) -> None:
        """Waits until something is to be done, for this errand or another; for news too, where that takes long."""
        asked = self._asked()
        timeout_s = min(LOOKS_ROUND_EACH_S, max(0.0, self._due_s(errand) - time.monotonic()))
        ready, _ = ray.wait(list(asked), num_returns=1, timeout=timeout_s)
        for one, attempt in map(asked.__getitem__, ready):
            self._take(one, attempt)
        if not ready:
            self.look_round()
        if errand in self._under_way and errand.attempts and self._due_s(errand) <= time.monotonic():
            self._decide(errand)

    def _decide(self, errand: Errand) -> None:
        """One of those who were asked is late."""
        lost = [attempt for attempt in errand.attempts if self._lost_s(attempt) <= time.monotonic()]
        if elsewhere := ended([attempt.reference for attempt in errand.attempts]):
            self._take(*self._asked()[elsewhere[0]])
        elif lost:
            self._suspect(lost[0])
        else:
            self._ask(errand, self._idle(errand)[0])

    def _due_s(self, errand: Errand) -> float:
        """When a decision falls due, monotonic: whom to ask as well, as long as somebody has nothing else to do; or
        whom to give up."""
        latest = errand.attempts[-1]
        late = [latest.asked_s + self._patience(latest).late_s] if self._idle(errand) else []
        return min([*late, *map(self._lost_s, errand.attempts)])

    def _idle(self, errand: Errand) -> list[int]:
        """Who has nothing of ours to answer: one that has is busy rather than quicker than who is late."""
        return self._routers[errand.host].idle({attempt.replica.number for attempt in errand.attempts})

    def _lost_s(self, attempt: Attempt) -> float:
        lived_s, _ = self._lived.get(attempt.replica, (attempt.asked_s, 0))
        return max(attempt.asked_s, lived_s) + self._patience(attempt).lost_s

    def _suspect(self, attempt: Attempt) -> None:
        """Its answer is overdue: lost, unless it says that it has judged something since it was last suspected, for
        others say."""
        replica, (_, before) = attempt.replica, self._lived.get(attempt.replica, (0.0, -1))
        actor = self._exchange.members.serving.get(replica.host, {}).get(replica.number)
        if actor is not None:
            judged = _judged(actor)
            if judged is not None and judged > before:
                self._lived[replica] = (time.monotonic(), judged)
                return
        self._lose(attempt, _silence(attempt))

    def _patience(self, attempt: Attempt) -> Patience:
        """By what is known now, not when it was asked."""
        own_slow_s, peers_slow_s = self._routers[attempt.replica.host].slow_s(attempt.replica.number)
        return patience(own_slow_s, peers_slow_s, attempt.ahead, self._most_s)

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
            self._fail(errand, _of_its_code(error, errand.host, self._teachers_of(errand.host)))
            return
        except RayError as error:
            self._lose(attempt, first_line(error))
            return
        self._settle(attempt, errand.batches, reply)
        errand.reply.append(reply)
        self._under_way.discard(errand)
        self._strays += [(other, errand.batches) for other in errand.attempts if other is not attempt]
        errand.served += reply.served(attempt.replica.number, errand.tries + len(errand.attempts) - 1)

    def _fail(self, errand: Errand, failure: KnowledgeError | TeacherLostError) -> None:
        """Told when it is its turn."""
        errand.failure.append(failure)
        self._under_way.discard(errand)

    def _settle_stray(self, stray: Attempt, batches: int) -> None:
        try:
            reply = Reply(*ray.get(stray.reference))
        except RayTaskError:  # it lives
            self._routers[stray.replica.host].answered_nothing(stray.replica.number, batches)
        except RayError as error:
            self._lose(stray, first_line(error))
        else:
            self._settle(stray, batches, reply)

    def _settle(self, attempt: Attempt, batches: int, reply: Reply) -> None:
        pace_s = (reply.queue_s + batches * reply.service_s) / attempt.ahead
        router = self._routers[attempt.replica.host]
        router.answered(attempt.replica.number, batches, reply.service_s, reply.present, pace_s)

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
        for errand in sorted(self._under_way, key=lambda errand: errand.opened):
            errand.give_up(self._lost, time.monotonic())
            if not errand.attempts:
                self._again(errand)

    def _again(self, errand: Errand) -> None:
        decision = after_loss(errand.accidents, len(self._routers[errand.host].loads))
        if decision is Decision.ABORT:
            text = f"{errand.tries} replicas were lost over one request; {self._causes(errand.host)}"
            self._fail(errand, TeacherLostError(f"teacher {errand.host!r}: {text}", self._teachers_of(errand.host)))
        if decision is Decision.REROUTE:
            self.send(errand)

    def _causes(self, host: str) -> str:
        lost = [f"replica {replica.number}: {cause}" for replica, cause in self._lost.items() if replica.host == host]
        failed = self._exchange.members.failed.get(host)
        return "; ".join([*lost[-CAUSES_NAMED:], *([failed] if failed else [])]) or "no replica has come"


def ended(references: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
    """Those that are answered, be it on another node from which the answer has not come yet."""
    return ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)[0]


def _of_its_code(error: RayTaskError, host: str, teachers: tuple[str, ...]) -> KnowledgeError | TeacherLostError:
    """What a replica raised would come again anywhere."""
    if isinstance(error.cause, KnowledgeError):
        return error.cause
    return TeacherLostError(f"teacher {host!r} failed: {error}", teachers)


def _judged(actor: Any) -> int | None:
    """How many batches it has judged; None where it does not say."""
    asked = actor.state.options(concurrency_group=CONTROL).remote()
    try:
        return ray.get(asked, timeout=SAYS_WITHIN_S)[2]
    except (RayError, TimeoutError):
        return None


def _silence(attempt: Attempt) -> str:
    return f"no answer within {time.monotonic() - attempt.asked_s:.1f} s"
