"""Fills a store ahead of any run: `collegium store build`."""

from __future__ import annotations

from contextlib import closing

from actors.fingerprints import content_hash
from actors.storage import Folder
from orchestrator.cluster import connected
from orchestrator.experiment import Experiment
from orchestrator.ladder_run import Filled, LadderRun
from orchestrator.live import LiveView
from orchestrator.pools import alone, announced
from orchestrator.result import CONFIG_FILE
from orchestrator.storing import refuse_endless, refuse_placeless
from orchestrator.tracking.tracker import Tracker

NUMBER_LENGTH = 8


def build_store(
    experiment: Experiment, *, address: str | None = None, view: LiveView | None = None
) -> dict[str, Filled]:
    """All that a run would ask, by rung, after training those teachers that are not trained yet. What is there is not
    computed again, so that the same call goes on after a kill.

    Raises ValueError before anything starts where the config cannot work, or keeps nothing.
    """
    config = experiment.config
    refuse_endless(config)
    plan = experiment.check()
    plan.refuse_if_elsewhere()
    refuse_placeless(config)
    view, document = view or LiveView(), config.to_yaml()
    number = content_hash(document)[:NUMBER_LENGTH]
    folder = Folder.at(config.storage) / config.name / f"store-{number}"
    folder.write(CONFIG_FILE, document.encode())
    untracked = Tracker.open(folder, experiment=config.name, uri="", storage=config.storage, send=False)
    with alone(folder), closing(untracked), connected(address, plan.side_by_side) as resources:
        plan.refuse_if_larger(resources)
        with announced(folder, address) as namespace, view:
            return LadderRun(config, experiment.findings, folder, untracked, namespace).fill(view)
