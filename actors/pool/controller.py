"""Where the owner of a pool and its clients meet: a small actor. Knowledge never passes it.

Imports no Ray.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.pool.members import HostStatus, Members, Replica


@dataclass(frozen=True)
class Wish:
    """What somebody at a terminal wants: so many replicas more, or fewer, of a host."""

    host: str
    change: int


@dataclass
class Told:
    """What clients told since the owner last asked. `waited_s`: seconds by host, of all clients; `clients`: those that
    were ever heard of; `lost`: replicas with their causes."""

    waited_s: dict[str, float] = field(default_factory=dict)
    clients: set[int] = field(default_factory=set)
    lost: dict[Replica, str] = field(default_factory=dict)
    wishes: list[Wish] = field(default_factory=list)


@dataclass(frozen=True)
class PoolStatus:
    """For somebody at a terminal; `lost` and `failed` as in `Members`."""

    hosts: Mapping[str, HostStatus]
    lost: Mapping[Replica, str]
    failed: Mapping[str, str]


class PoolController:
    """Begins without members: the owner publishes them, also to one that takes another's place; clients keep what they
    know."""

    def __init__(self, hosts: Mapping[str, HostStatus]) -> None:
        self._hosts = hosts
        self._members = Members()
        self._told = Told()

    def pid(self) -> int:
        return os.getpid()

    def exchange(
        self, rank: int, version: int, waited_s: Mapping[str, float], lost: Mapping[Replica, str]
    ) -> Members | None:
        """A client tells and learns: the members, where they are newer than its `version`."""
        self._told.clients.add(rank)
        for host, seconds in waited_s.items():
            self._told.waited_s[host] = self._told.waited_s.get(host, 0.0) + seconds
        self._told.lost.update(lost)
        return self._members if self._members.version > version else None

    def collect(self, hosts: Mapping[str, HostStatus]) -> tuple[int, Told]:
        """For the owner, who says how its hosts are: the version of the members here, and what was told since the last
        call."""
        self._hosts = hosts
        told, self._told = self._told, Told(clients=set(self._told.clients))
        return self._members.version, told

    def publish(self, members: Members) -> None:
        self._members = members

    def status(self) -> PoolStatus:
        return PoolStatus(self._hosts, self._members.lost, self._members.failed)

    def wish(self, wish: Wish) -> None:
        self._told.wishes.append(wish)
