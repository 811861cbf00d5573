"""Which shelves somebody reads now, so that nobody prunes them. Imports no Ray."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Collection
from contextlib import suppress

from actors.storage import Folder

logger = logging.getLogger(__name__)

READERS = "readers"
RENEWED_EACH_S = 20.0
LASTS_S = 120.0
"""Who was killed holds its shelves for so long."""


class Lease:
    """Of one reader: a file that is written anew while it lives."""

    def __init__(self, store: Folder) -> None:
        self._folder = store / READERS
        self._name = f"{uuid.uuid4().hex}.json"
        self._keys: set[str] = set()
        self._written_s = 0.0

    def hold(self, keys: Collection[str]) -> None:
        self._keys |= set(keys)
        self._write()

    def renew(self) -> None:
        if self._keys and time.monotonic() - self._written_s > RENEWED_EACH_S:
            self._write()

    def end(self) -> None:
        with suppress(OSError, ValueError):  # it ends by itself
            self._folder.remove(self._name)

    def _write(self) -> None:
        self._written_s = time.monotonic()
        try:
            self._folder.write(self._name, json.dumps(sorted(self._keys)).encode())
        except (OSError, ValueError) as error:
            logger.info("store: a prune may take away what is read here: %s", error)


def held(store: Folder) -> set[str]:
    """The keys of all shelves that somebody reads."""
    folder, now_s = store / READERS, time.time()
    found: set[str] = set()
    for entry in folder.entries():
        if now_s - entry.changed_s > LASTS_S:
            folder.remove(entry.name)
        else:
            found |= set(json.loads(folder.read(entry.name)))
    return found
