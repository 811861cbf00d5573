"""Claims that several student workers share: through a small actor, which answers for as long as the run lasts."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import ray
from ray.exceptions import RayActorError

from actors.store.claims import ClaimsBook, Granted, NobodyElse, RowsOf

logger = logging.getLogger(__name__)


def start_claims() -> Any:
    """The actor; an unlucky end of it costs that some rows are computed twice."""
    alive = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(ClaimsBook).options(num_cpus=0, **alive).remote()


class SharedClaims:
    """Of one client."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._client = uuid.uuid4().hex

    def claim(self, rows: RowsOf) -> Granted:
        try:
            return Granted(*ray.get(self._book.claim.remote(self._client, dict(rows))))
        except RayActorError as error:
            logger.warning("store: nobody keeps claims any more, rows may be computed twice: %s", error)
            return NobodyElse().claim(rows)

    def release(self, rows: RowsOf) -> None:
        self._book.release.remote(self._client, dict(rows))

    def is_waited_for(self) -> bool:
        try:
            return ray.get(self._book.is_waited_for.remote(self._client))
        except RayActorError:
            return False
