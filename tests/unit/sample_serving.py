"""How teachers might have served a run, by a small simulation: what is left in a rung's folder and in its history."""

import json
from pathlib import Path

import numpy as np

from actors.serving import POOL_FILE, Served, ServingLog, timeline_file

STEP_S, ROWS, WINDOW = 0.03, 128, 3
SERVICE_S = {"residual": 0.09, "plain": 0.05, "transformer": 0.16}
BEGAN = 1_800_000_000.0
TEACHERS = ("residual", "plain", "transformer")


def serve(run, *, rung="student", teachers=TEACHERS, workers=1, replicas=8, steps=120, pool=True):
    """Adds to a made-up run how its teachers served this rung."""
    result = json.loads((run / "result.json").read_text())
    [one] = [each for each in result["rungs"] if each["name"] == rung]
    logs = [ServingLog() for _ in range(workers)]
    for record in one["history"]:
        if record["epoch"] == 1:
            for log in logs:
                log.record(1)
        seconds = epoch(logs, teachers, replicas, steps, record["epoch"])
        record["serving"] = [log.summary(seconds) for log in logs]
    folder = Path(run, "rungs", rung)
    folder.mkdir(parents=True)
    for rank, log in enumerate(logs):
        (folder / timeline_file(rank)).write_text(json.dumps(log.timeline()))
    if pool:
        one["pool"] = pool_of(teachers, replicas)
        (folder / POOL_FILE).write_text(json.dumps(one["pool"]))
    (run / "result.json").write_text(json.dumps(result))
    return run


def epoch(logs, teachers, replicas, steps, number):
    """Each worker asks for a window of batches ahead; a replica serves one after the other, and one of them hangs."""
    dice = np.random.default_rng([number, len(logs)])
    free = {(teacher, replica): 0.0 for teacher in teachers for replica in range(replicas)}
    now, ready = [0.0] * len(logs), [{} for _ in logs]
    for step in range(steps):
        for rank, log in enumerate(logs):
            while len(ready[rank]) <= WINDOW and step + len(ready[rank]) < steps:
                asked = now[rank]
                ready[rank][step + len(ready[rank])] = [
                    answer(log, free, teacher, asked, dice, hangs=step == steps // 2 and teacher == teachers[0])
                    for teacher in teachers
                ]
            now[rank] = take_step(log, teachers, now[rank], ready[rank].pop(step))
        now = [max(now)] * len(now)
    return max(now)


def answer(log, free, teacher, asked, dice, *, hangs):
    """When the answer is there."""
    replica = min((key for key in free if key[0] == teacher), key=lambda key: (free[key], key[1]))
    began = max(asked, free[replica])
    service_s = SERVICE_S.get(teacher, 0.1) * float(dice.lognormal(0, 0.12)) + (1.5 if hangs else 0.0)
    free[replica] = began + service_s
    log.answer(
        Served(teacher, str(replica[1]), ROWS, ROWS * 40, service_s, began - asked, BEGAN + began, retries=int(hangs))
    )
    return began + service_s


def take_step(log, teachers, now, there):
    for teacher, at in zip(teachers, there, strict=True):
        if at > now:
            log.waited(teacher, BEGAN + now, at - now)
            now = at
    now += 0.004  # the next batch's pixels
    log.step(BEGAN + now, STEP_S)
    return now + STEP_S


def pool_of(teachers, replicas):
    changes = [[4.0 + number / 4, number + 1] for number in range(replicas)]
    lost = [[55.0, replicas - 1], [58.5, replicas]]
    first = teachers[0]
    return {
        "started": BEGAN - 4,
        "replicas": {teacher: changes + (lost if teacher == first else []) for teacher in teachers},
        "restarts": {teacher: int(teacher == first) for teacher in teachers},
        "events": [
            [55.0, first, "replica 0 died: its process was killed by signal 9"],
            [58.5, first, "replica 0 serves"],
            [71.25, teachers[-1], "replica 1 did not answer within 1.9 s"],
        ],
        "dropped": [],
    }
