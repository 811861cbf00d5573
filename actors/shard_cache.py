"""Copies of remote files on this machine, the least recently used removed first. Processes share it without a lock:
copies are written aside and renamed, and a file that is mapped stays mapped when it is removed.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE_VARIABLE = "COLLEGIUM_CACHE_GB"
DEFAULT_GB = 10.0
LEFT_BEHIND_S = 3600.0
"""What was not written to for so long, aside, is of a killed process."""


@dataclass(frozen=True)
class ShardCache:
    """`max_bytes`: of all copies together; one that is larger by itself is kept alone."""

    folder: Path
    max_bytes: int

    @classmethod
    def of_this_machine(cls) -> ShardCache:
        """Where and how large the environment says. Raises ValueError where that is no size."""
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        given = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_GB)
        try:
            return cls(Path(root, "collegium", "shards"), int(float(given) * 1e9))
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{SIZE_VARIABLE}: expected a number of gigabytes, got {given!r}") from error

    def place(self, name: str, *what: str) -> Path:
        """Of the file that is called and described so; it keeps its suffix."""
        return self.folder / (hashlib.sha256("\n".join((name, *what)).encode()).hexdigest() + Path(name).suffix)

    def has(self, place: Path, size: int) -> bool:
        """Marks it as used."""
        try:
            os.utime(place)
            return place.stat().st_size == size
        except FileNotFoundError:
            return False

    @contextmanager
    def aside(self, size: int) -> Iterator[Path]:
        """A file to be written and then kept; room is made for it first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shrink(self.max_bytes - size)
        aside = self.folder / f".{uuid.uuid4().hex}"
        try:
            yield aside
        finally:
            aside.unlink(missing_ok=True)

    def keep(self, aside: Path, place: Path) -> None:
        aside.replace(place)
        self._shrink(self.max_bytes, spared=place)

    def _shrink(self, most: int, spared: Path | None = None) -> None:
        found = []
        for path in self.folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in found)
        for changed_ns, size, path in sorted(found):
            if total <= most:
                return
            being_fetched = path.name[0] == "." and time.time() - changed_ns / 1e9 < LEFT_BEHIND_S
            if path != spared and not being_fetched:
                path.unlink(missing_ok=True)
                total -= size
