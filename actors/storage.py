"""The one door to storage: whole files in folders. A reader sees a file whole or not at all."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path


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

    def names(self) -> list[str]:
        """The files that are complete, sorted."""
        folder = Path(self.path)
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file() and entry.name[0] != ".")

    def remove(self, name: str) -> None:
        Path(self.path, name).unlink(missing_ok=True)
