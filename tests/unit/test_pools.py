"""Pools of a run under way, as a terminal sees them: who is called what, who may go, what is said where nobody is."""

import json
import socket
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from actors.policies.scaling import TICKS_TO_GROW, TICKS_TO_SHRINK
from actors.pool.chronicle import Chronicle
from actors.pool.controller import PoolController, PoolStatus, Wish
from actors.pool.hosts import Host
from actors.pool.members import HostStatus, Members, Replica
from actors.specs import DataSpec, ImportSpec, ModelSpec, TeacherSpec
from actors.storage import Folder
from orchestrator.pools import CLUSTER_FILE, alone, whereabouts, wishes
from orchestrator.printing import print_pools

BOTH = HostStatus(("wide", "deep"), wanted=3, serving=2, waited=0.254)
ALONE = HostStatus(("plain",), wanted=1, serving=1, waited=0.0)
POOLS = {
    "middle": PoolStatus({"plain": replace(ALONE, wanted=2, serving=2, trouble="OSError: no such file")}, {}, {}),
    "student": PoolStatus({"both": BOTH, "plain": ALONE}, {Replica("both", 1): "no answer within 9.0 s"}, {}),
}


@pytest.mark.parametrize("name", ["wide", "deep", "both"])
def test_a_teacher_that_shares_an_actor_has_two_names(name):
    assert wishes(POOLS, name, 2) == ({"student": Wish("both", 2)}, ["student: both: 5 wanted"])


def test_a_wish_is_for_every_rung_that_the_teacher_teaches_now():
    wished, said = wishes(POOLS, "plain", 1)
    assert wished == {"middle": Wish("plain", 1), "student": Wish("plain", 1)}
    assert said == ["middle: plain: 3 wanted", "student: plain: 2 wanted"]


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("wid", 1, "pool: no teacher 'wid'; did you mean 'wide'?"),
        ("xyz", -1, "pool: no teacher 'xyz'; there is plain, both, wide, deep"),
        ("plain", -1, "pool: plain has 1 in student, one is always left; it is the last"),
        ("deep", -3, "pool: both has 3 in student, one is always left; remove 2 at most"),
    ],
)
def test_a_wish_that_cannot_be_granted_is_refused(name, change, told):
    with pytest.raises(ValueError) as refused:
        wishes(POOLS, name, change)
    assert str(refused.value) == told


def test_all_but_one_may_go():
    assert wishes(POOLS, "both", -2)[1] == ["student: both: 1 wanted"]


def test_a_folder_that_is_no_run_or_whose_run_has_ended_says_so(tmp_path):
    run = Folder(str(tmp_path))

    def told() -> str:
        with pytest.raises(ValueError) as refused:
            whereabouts(run)
        return str(refused.value)

    assert told() == f"pool: expected the folder of a run, found no config.yaml in '{run}'"
    run.write("config.yaml", b"")
    assert told() == f"pool: this run is not under way; go on with: collegium run --resume {run}"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        run.write(CLUSTER_FILE, json.dumps({"address": address}).encode())
        assert whereabouts(run) == {"address": address}
        run.write(CLUSTER_FILE, json.dumps({"address": f"ray://{address}"}).encode())
        assert whereabouts(run) == {"address": f"ray://{address}"}
    assert f"nobody answers at ray://{address}, where its cluster was; go on with: collegium run --resume" in told()
    run.remove(CLUSTER_FILE)
    run.write("result.json", b"")
    assert told() == f"pool: this run is finished, its result is {tmp_path / 'result.json'}"


def test_only_one_process_goes_on_with_a_run(tmp_path):
    run = Folder(str(tmp_path))
    with alone(run), pytest.raises(ValueError, match="is under way already, in another process; wait"), alone(run):
        pass
    with alone(run):
        assert run.names() == []


def shown(free: dict[str, float]) -> list[str]:
    console = Console(file=StringIO(), width=120)
    print_pools(POOLS, free, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_says_who_serves_who_is_waited_for_and_who_was_lost():
    assert shown({"CPU": 0.0, "GPU": 2.0}) == [
        "rung     teacher            serving  wanted  students waited",
        "middle   plain                    2       2               0%",
        "student  both (wide, deep)        2       3              25%",
        "student  plain                    1       1               0%",
        "middle: plain: a new replica could not be started, tried again: OSError: no such file",
        "student: both replica 1 was lost: no answer within 9.0 s",
        "who is wanted and does not serve yet loads, or waits for a place; free: 0 CPU, 2 GPU",
    ]


def test_the_controller_knows_the_hosts_from_its_start_and_then_from_its_owner():
    controller = PoolController({"plain": ALONE})
    assert controller.status() == PoolStatus({"plain": ALONE}, {}, {})

    controller.wish(Wish("plain", 1))
    lost = {Replica("plain", 0): "died"}
    controller.publish(Members(4, {"plain": {}}, lost, {"plain": "no new one can be started"}))
    version, told = controller.collect({"plain": BOTH})

    assert version == 4 and told.wishes == [Wish("plain", 1)]
    assert controller.status() == PoolStatus({"plain": BOTH}, lost, {"plain": "no new one can be started"})


def host(replicas: int, most: int | None = None) -> Host:
    model = ModelSpec(ImportSpec("actors.models:mlp"))
    digits = ImportSpec("actors.datasets:Digits")
    spec = TeacherSpec("wide", model, "nowhere.safetensors", replicas=replicas, most_replicas=most)
    return Host((spec,), DataSpec(digits, digits, slices={}), None, Chronicle())


@pytest.mark.parametrize(("replicas", "most"), [(2, None), (2, 3)])
@pytest.mark.parametrize("waited", [0.0, 1.0])
def test_what_a_hand_has_done_is_not_undone_by_the_policy(replicas, most, waited):
    touched = host(replicas, most)
    touched.wish(1 if waited == 0 else -1)
    for _ in range(TICKS_TO_SHRINK + 1):
        touched.scale(waited)
    untouched = host(replicas, most)
    for _ in range(TICKS_TO_SHRINK + 1):
        untouched.scale(waited)
    moved = 1 if waited == 0 else -1
    assert touched.status.wanted == untouched.status.wanted + moved


def test_at_least_one_is_left():
    few = host(2)
    few.wish(-5)
    assert few.status.wanted == 1
    few.wish(1)
    for _ in range(TICKS_TO_GROW):
        few.scale(1.0)
    assert few.status == HostStatus(("wide",), wanted=2, serving=0, waited=1.0)
