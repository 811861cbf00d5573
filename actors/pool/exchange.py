"""A client's exchange with the controller, beside its work: what it has to tell goes, who is in the pool comes."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from actors.pool.members import Members, PoolHandle, Replica

logger = logging.getLogger(__name__)

EACH_S = 0.25
ASKED_FOR_NEWS_S = 1.0
COMES_WITHIN_S = 30.0


class Exchange:
    """Costs one small call in `EACH_S`; a controller that is gone for a while costs nothing but news."""

    def __init__(self, handle: PoolHandle, rank: int) -> None:
        self.members = handle.members
        self._where = handle.controller
        self._controller = _awaited(self._where)
        self._rank = rank
        self._waited_s: dict[str, float] = {}
        self._lost: dict[Replica, str] = {}
        self._called_s = 0.0
        self._under_way: list[ray.ObjectRef] = []

    def waited(self, host: str, seconds: float) -> None:
        self._waited_s[host] = self._waited_s.get(host, 0.0) + seconds

    def lost(self, replica: Replica, cause: str) -> None:
        """Told at once, so that nobody else asks it."""
        self._lost[replica] = cause
        self._call()

    def news(self) -> Members | None:
        """The members, if there is word of new ones; never waits."""
        if self._under_way:
            ready, self._under_way = ray.wait(self._under_way, num_returns=len(self._under_way), timeout=0)
            if news := self._newest(ready):
                return news
        if not self._under_way and time.monotonic() - self._called_s > EACH_S:
            self._call()
        return None

    def awaited_news(self) -> Members | None:
        """The same, waiting up to `EACH_S` for it."""
        if not self._under_way:
            time.sleep(EACH_S / 4)
            self._call()
        ready, self._under_way = ray.wait(self._under_way, num_returns=1, timeout=EACH_S)
        return self._newest(ready)

    def _call(self) -> None:
        self._called_s = time.monotonic()
        # Told again until it is seen to have been heard: the controller may have died with it.
        self._lost = {gone: why for gone, why in self._lost.items() if gone.number in self.members.serving[gone.host]}
        call = self._controller.exchange.remote(self._rank, self.members.version, self._waited_s, self._lost)
        self._under_way.append(call)
        self._waited_s = {}

    def _newest(self, answered: list[ray.ObjectRef]) -> Members | None:
        before = self.members
        for call in answered:
            try:
                told: Members | None = ray.get(call, timeout=ASKED_FOR_NEWS_S)
            except GetTimeoutError:
                continue
            except RayActorError:
                self._find()
                continue
            if told is not None and told.version > self.members.version:
                self.members = told
        return None if self.members is before else self.members

    def _find(self) -> None:
        """Its owner puts another in the place of a controller that is gone."""
        try:
            self._controller = ray.get_actor(*self._where)
        except ValueError:
            logger.info("the pool has no controller at the moment")


def _awaited(where: tuple[str, str]) -> Any:
    """The controller, or whoever takes its place in a moment; raises ValueError where nobody does."""
    until_s = time.monotonic() + COMES_WITHIN_S
    while time.monotonic() < until_s:
        try:
            return ray.get_actor(*where)
        except ValueError:
            time.sleep(EACH_S)
    return ray.get_actor(*where)
