"""A script: a pool whose replicas are on another node than the student, with answers of 16 MB and a slow student; then
a pause. Prints how often a request was made twice, and how many replicas were lost; then whether a pool whose cluster
was left under it has started another."""

import tempfile
import time

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster

from actors.data import BatchSampler, SharedDataset, training_rows
from actors.datasets import Digits
from actors.knowledge import LOGITS, Position, TeacherRequest
from actors.pool.client import PoolClient
from actors.pool.keeper import TeacherPool
from actors.sources import prefetched
from actors.specs import DataSpec, ImportSpec, ModelSpec, Resources, TeacherSpec
from actors.storage import Folder
from actors.weights import weights_as_bytes

ROWS, WIDTH = 40, 100_000
DATA = DataSpec(
    ImportSpec("actors.datasets:Digits"),
    ImportSpec("actors.datasets:Digits", {"train": False}),
    slices={"student": 240, "validation": 100},
)
STORE = {"object_store_memory": 400_000_000}


def main() -> None:
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **STORE})
    nodes.add_node(num_cpus=2, resources={"far": 2}, **STORE)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    rows, sampler = training_rows(Digits(), DATA), BatchSampler(np.arange(240), np.zeros(0, np.int64), ROWS, 0, 1)
    batches = [sampler.batch(rows, Position(step // 6, step % 6)) for step in range(10)]
    pool = TeacherPool.start((far_teacher(),), ray.put(SharedDataset.of(Digits())), DATA)
    client, request = PoolClient(pool.handle), (TeacherRequest("wide", False, ("wide",)),)
    sizes = set()
    for _, [knowledge] in prefetched(client, batches, lambda batch: request, window=2):
        sizes.add(knowledge.num_bytes)
        time.sleep(0.5)
    asked = client.ask(batches[0], request)
    client.ask(batches[1], request)
    time.sleep(6.0)
    asked.result()
    print(sizes, "asked twice", client.log.retries, "lost", len(pool.members.lost))
    ray.shutdown()
    time.sleep(1.0)
    pool.stop()
    print("another cluster", ray.is_initialized())
    nodes.shutdown()


def far_teacher() -> TeacherSpec:
    model = ModelSpec(ImportSpec("actors.models:mlp", {"width": WIDTH, "depth": 1}), taps={"wide": "stem"})
    torch.manual_seed(0)
    folder = Folder(tempfile.mkdtemp())
    folder.write("wide.safetensors", weights_as_bytes(model.model.build()))
    shapes = {LOGITS: (10,), "wide": (WIDTH,)}
    far = Resources(1, 0, {"far": 1})
    return TeacherSpec("wide", model, folder.file("wide.safetensors"), shapes, replicas=2, chunk=ROWS, resources=far)


if __name__ == "__main__":
    main()
