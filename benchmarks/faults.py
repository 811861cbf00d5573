"""Faults for a pool under way: replicas are killed, stopped, slowed, added and retired, as a seeded dice says."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from threading import Thread

import psutil

from actors.pool.keeper import TeacherPool

KINDS = ("kill", "stop", "slow", "add")
MOST_REPLICAS = 3
STOPPED_S = (0.5, 8.0)
SLOWED_S = 3.0
BLINK_S = 0.04


class Faults:
    """`struck`: how often what was done; `pids`: every replica that ever served."""

    def __init__(self, pool: TeacherPool, seed: int, gap_s: float) -> None:
        self.struck: Counter[str] = Counter()
        self.pids: set[int] = set()
        self._pool = pool
        self._dice = random.Random(seed)
        self._gap_s = gap_s
        self._next_s = 0.0
        self._waking: list[Thread] = []

    def strike(self) -> None:
        """One fault, `gap_s` after the last."""
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + self._gap_s
        pids = self._pool.pids()
        self.pids |= set(pids.values())
        kind, host = self._dice.choice(KINDS), self._dice.choice(sorted(self._pool.members.serving))
        serving = [pid for replica, pid in pids.items() if replica.host == host and alive(pid)]
        if kind == "add" or not serving:
            kind = "add" if len(serving) < MOST_REPLICAS else "retire"
            self._pool.wish(host, 1 if kind == "add" else -1)
        else:
            self._hurt(kind, self._dice.choice(serving))
        self.struck[kind] += 1

    def _hurt(self, kind: str, pid: int) -> None:
        if kind == "kill":
            send(pid, signal.SIGKILL)
            return
        stopped_s = self._dice.uniform(*STOPPED_S)
        work = (_stop, (pid, stopped_s)) if kind == "stop" else (_slow, (pid,))
        self._waking.append(Thread(target=work[0], args=work[1]))
        self._waking[-1].start()

    def over(self) -> None:
        for thread in self._waking:
            thread.join()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _stop(pid: int, seconds: float) -> None:
    send(pid, signal.SIGSTOP)
    time.sleep(seconds)
    send(pid, signal.SIGCONT)


def _slow(pid: int) -> None:
    """Half as fast, for a while."""
    end_s = time.monotonic() + SLOWED_S
    while time.monotonic() < end_s:
        send(pid, signal.SIGSTOP)
        time.sleep(BLINK_S)
        send(pid, signal.SIGCONT)
        time.sleep(BLINK_S)
