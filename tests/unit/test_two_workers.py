"""Losses that mask rows, on two workers with gloo: what DDP averages is the mean over the global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

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


@pytest.fixture(scope="module")
def of_both(tmp_path_factory):
    """For each of the batches: (loss, gradient of its logits) of rank 0 and of rank 1."""
    command = [sys.executable, "-c", CODE, str(tmp_path_factory.mktemp("group") / "store")]
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    outputs = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    first, second = (json.loads(output.splitlines()[-1]) for output, _ in outputs)
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
