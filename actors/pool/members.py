"""Who is in a pool, as the owner publishes it. Imports no Ray: handles of actors are opaque here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from actors.specs import TeacherSpec

Inputs = Literal["sent", "derived"]


class Replica(NamedTuple):
    """One actor of a host. Numbers are never used again: who takes a lost one's place has another."""

    host: str
    number: int


@dataclass(frozen=True)
class Members:
    """`serving`: handles by host and number; `lost`: what has died or was given up, and must not be waited for;
    `failed`: why a host will never serve again."""

    version: int = 0
    serving: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    lost: Mapping[Replica, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HostStatus:
    """What the owner says of a host. `wanted`, `serving`: replicas; `waited`: the share of the latest
    seconds that students waited for it, their mean; `trouble`: why the latest to start did not come, if so."""

    teachers: tuple[str, ...]
    wanted: int
    serving: int
    waited: float
    trouble: str = ""


@dataclass(frozen=True)
class PoolHandle:
    """All that a client needs; travels to student workers.

    `controller`: its name and namespace, by which whoever takes its place is found as well; `hosts`: the host of each
    teacher; `inputs`: whether pixels are sent or built by the replicas; `answer_timeout_s`:
    the longest that an answer is waited for.
    """

    controller: tuple[str, str]
    members: Members
    hosts: Mapping[str, str]
    inputs: Inputs
    answer_timeout_s: float

    def teachers_of(self, host: str) -> tuple[str, ...]:
        return tuple(teacher for teacher, its_host in self.hosts.items() if its_host == host)


def by_host(specs: Sequence[TeacherSpec]) -> dict[str, tuple[TeacherSpec, ...]]:
    """The teachers that live in the same actors; a host is called by its teachers' `actor`, or by its only teacher."""
    hosts: dict[str, tuple[TeacherSpec, ...]] = {}
    for spec in specs:
        hosts[spec.host] = (*hosts.get(spec.host, ()), spec)
    return hosts
