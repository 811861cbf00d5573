"""Losses that mask rows, on two workers with gloo: what DDP averages is the mean over the global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
CODE = """
import json, sys
import torch
torch.set_num_threads(1)
from actors.criterion import Criterion
from actors.specs import ImportSpec, LossSpec
from actors.term import Outputs, Targets
file, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
hard = LossSpec("hard", ImportSpec("actors.losses:cross_entropy_loss"), on="labels")
terms = Criterion([hard], {"logits": (3,)}, [])
values = []
for labels in (
    [[0, 1, 2], [1, -1, -1]],
    [[0, 1, 2], [-1, -1, -1]],
    [[-1, -1, -1], [-1, -1, -1]],
    [[-1, 2, -1], [-1, -1, -1]],
):
    logits = torch.arange(18.0).reshape(2, 3, 3).sin()[rank].requires_grad_()
    total, *_ = terms(Outputs(logits), Targets(torch.tensor(labels[rank]), torch.arange(3)))
    total.backward()
    values.append([total.item(), logits.grad.tolist()])
print(json.dumps(values))
torch.distributed.destroy_process_group()
"""


# On rank 0 the router asks `b` about all rows, on rank 1 about some, and the dice of this step hear `a` alone.
RULES = """
import json, sys, torch
from dataclasses import replace
torch.set_num_threads(1)
from actors.criterion import Criterion
from actors.knowledge import Knowledge, Position
from actors.specs import ImportSpec, LossSpec, ModelSpec, TeacherSpec
from actors.term import Outputs, Targets
file, rank = sys.argv[1], int(sys.argv[2])
if rank < 2:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
model = ModelSpec(ImportSpec("actors.models:mlp"))
teachers = [TeacherSpec(name, model, "", {"logits": (3,)}) for name in "ab"]
dkd = ImportSpec("actors.losses:dkd_loss")
def soft(name, rule, **kwargs):
    rule = ImportSpec(f"actors.ensemble:{rule}", kwargs)
    return LossSpec(name, dkd, on="logits", teachers=("a", "b"), ensemble=rule)
losses = [soft("dice", "random"), soft("routed", "label_routing", routes={"a": [0, 1], "b": [2]}),
          soft("sure", "confidence"), soft("gate", "learned")]
terms = Criterion(losses, {"logits": (3,)}, teachers)
labels = torch.tensor([2, 2, 2, 0, 1, -1])
logits = {name: torch.arange(18.0).reshape(6, 3).add(shift).cos() for name, shift in (("a", 0.0), ("b", 1.0))}
student = torch.arange(18.0).reshape(6, 3).sin()
mine = slice(3 * rank, 3 * rank + 3) if rank < 2 else slice(0, 6)
step = next(step for step in range(50) if list(terms.terms[0].asked(labels, Position(0, step))) == ["a"])
found = []
# Without b nobody teaches the rows of class 2, which are all of rank 0's.
halves = [replace(one, class_map=known, shapes={"logits": (len(known),)})
          for one, known in zip(teachers, [(0, 1), (2,)])]
own = LossSpec("own", ImportSpec("actors.losses:kd_loss"), on="logits", teachers=("a", "b"),
               ensemble=ImportSpec("actors.ensemble:label_routing"))
for some, by, dropped in ((losses, teachers, ()), (losses[:2], teachers, ()), (losses, teachers, ("b",)),
                          ([own], halves, ("b",))):
    criterion = Criterion(some, {"logits": (3,)}, by, dropped=dropped)
    request = criterion.request(labels[mine], Position(0, step))
    known = {}
    for one in request:
        rows = slice(None) if one.rows is None else list(one.rows)
        columns = [teacher.class_map for teacher in by if teacher.name == one.teacher][0] or range(3)
        sent = logits[one.teacher][mine][rows][:, list(columns)]
        known[one.teacher] = Knowledge(one.teacher, sent, rows=one.rows)
    leaf = student[mine].clone().requires_grad_()
    targets = Targets(labels[mine], torch.arange(6)[mine], known, Position(0, step))
    total, values, _ = criterion(Outputs(leaf), targets)
    total.backward()
    found.append([{name: value.item() for name, value in values.items()}, leaf.grad.tolist()])
print(json.dumps(found))
if rank < 2:
    torch.distributed.destroy_process_group()
"""


def test_rules_give_two_workers_together_what_they_give_one(tmp_path):
    first, second = in_processes(RULES, tmp_path / "group", (0, 1))
    [whole] = in_processes(RULES, tmp_path / "none", (2,))
    for (ours, of_ours), (theirs, of_theirs), (alone, of_alone) in zip(first, second, whole, strict=True):
        for name, value in alone.items():
            assert (ours[name] + theirs[name]) / 2 == pytest.approx(value, rel=1e-5), name
        averaged = torch.tensor([*of_ours, *of_theirs]) / 2
        torch.testing.assert_close(averaged, torch.tensor(of_alone), rtol=1e-4, atol=1e-6)


def in_processes(code, file, ranks):
    command = [sys.executable, "-c", code, str(file)]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in ranks
    ]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert not any(worker.returncode for worker in workers), outputs
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


@pytest.fixture(scope="module")
def of_both(tmp_path_factory):
    """For each of the batches: (loss, gradient of its logits) of rank 0 and of rank 1."""
    first, second = in_processes(CODE, tmp_path_factory.mktemp("group") / "store", (0, 1))
    return list(zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("batch", "labels"),
    [(0, [0, 1, 2, 1, -1, -1]), (1, [0, 1, 2, -1, -1, -1]), (3, [-1, 2, -1, -1, -1, -1])],
)
def test_the_mean_over_both_workers_is_the_mean_over_all_labelled_rows(of_both, batch, labels):
    logits = torch.arange(18.0).reshape(6, 3).sin().requires_grad_()
    whole = F.cross_entropy(logits, torch.tensor(labels), ignore_index=-1)
    whole.backward()
    (first, of_first), (second, of_second) = of_both[batch]
    assert (first + second) / 2 == pytest.approx(whole.item(), rel=1e-6)
    averaged = torch.tensor([*of_first, *of_second]) / 2
    torch.testing.assert_close(averaged, logits.grad)


def test_without_a_label_anywhere_it_is_0(of_both):
    for value, gradient in of_both[2]:
        assert value == 0 and not any(map(any, gradient))
