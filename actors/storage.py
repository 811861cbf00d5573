"""The one door to storage: whole files in folders. A reader sees a file whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A complete file of a folder. `changed_s`: when it was written, `time.time()`."""

    name: str
    num_bytes: int
    changed_s: float


@dataclass(frozen=True)
class Folder:
    """A folder of files that are written aside, synced and renamed."""

    path: str

    def __truediv__(self, name: str) -> Folder:
        return Folder(str(Path(self.path) / name))

    def __str__(self) -> str:
        return self.path

    def file(self, name: str) -> str:
        return str(Path(self.path) / name)

    def has(self, name: str) -> bool:
        return Path(self.path, name).is_file()

    def read(self, name: str) -> bytes:
        return Path(self.path, name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        Path(self.path).mkdir(parents=True, exist_ok=True)
        aside = Path(self.path, f".{name}.{uuid.uuid4().hex}")
        try:
            with aside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(Path(self.path, name))
        finally:
            aside.unlink(missing_ok=True)

    def local(self, name: str) -> str:
        """The path of a file with this content on this machine, to be mapped into memory."""
        return self.file(name)

    def names(self) -> list[str]:
        """The files that are complete, sorted."""
        return [entry.name for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """The files that are complete, by name."""
        found = []
        for entry in self._there():
            if entry.is_file() and entry.name[0] != ".":
                with suppress(FileNotFoundError):  # removed by somebody since
                    stat = entry.stat()
                    found.append(Entry(entry.name, stat.st_size, stat.st_mtime))
        return sorted(found)

    def folders(self) -> list[str]:
        """The folders in it, sorted."""
        return sorted(entry.name for entry in self._there() if entry.is_dir())

    def _there(self) -> list[os.DirEntry[str]]:
        try:
            return list(os.scandir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        Path(self.path, name).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """The folder, with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def clean(self, older_than_s: float) -> None:
        """Removes what killed writers have left behind so long ago."""
        for entry in self._there():
            with suppress(FileNotFoundError):
                if entry.is_file() and entry.name[0] == "." and time.time() - entry.stat().st_mtime > older_than_s:
                    os.unlink(entry.path)
