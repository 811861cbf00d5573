"""The one door to storage: whole files in folders, here or in a bucket. A reader sees a file whole or not at all.

`Folder` is what all use; `OnDisk` does its work for a path, `actors.buckets` for an s3:// or gs:// URI.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote

from actors.buckets import InBucket, address_of

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class Entry(NamedTuple):
    """A complete file of a folder. `changed_s`: when it was written, `time.time()`."""

    name: str
    num_bytes: int
    changed_s: float


def is_uri(path: str) -> bool:
    """Whether this is meant as a URI; anything else is a path of this machine."""
    return _URI.match(path) is not None


@dataclass(frozen=True)
class Folder:
    """A folder of files. `path`: on this machine, or `s3://bucket/prefix`, `gs://bucket/prefix`, options after a `?`.

    Raises ValueError (`storage: ...`) for a URI that is none of these, and where a bucket cannot be reached or used.
    """

    path: str

    @classmethod
    def at(cls, place: str | os.PathLike[str]) -> Folder:
        """A URI as it is; a path from the root on."""
        text = str(place)
        return cls(text if is_uri(text) else str(Path(text).absolute()))

    @classmethod
    def found_at(cls, place: str | os.PathLike[str]) -> Folder:
        """The same, without symbolic links."""
        text = str(place)
        return cls(text if is_uri(text) else os.path.realpath(text))

    def __post_init__(self) -> None:
        if is_uri(self.path):
            address_of(self.path)

    def __truediv__(self, name: str) -> Folder:
        parts = [_plain(part) for part in name.split("/")]
        if not is_uri(self.path):
            return Folder(str(Path(self.path, *parts)))
        head, mark, options = self.path.partition("?")
        return Folder("/".join([head.rstrip("/"), *(quote(part) for part in parts)]) + mark + options)

    def __str__(self) -> str:
        """Without what identifies somebody."""
        return self._place.shown

    def __repr__(self) -> str:
        return f"Folder({str(self)!r})"

    @property
    def is_remote(self) -> bool:
        return is_uri(self.path)

    @property
    def name(self) -> str:
        return unquote(self.path.partition("?")[0].rstrip("/").rpartition("/")[2])

    @property
    def parent(self) -> Folder:
        if not self.is_remote:
            return Folder(str(Path(self.path).parent))
        head, mark, options = self.path.partition("?")
        return Folder(head.rstrip("/").rpartition("/")[0] + mark + options)

    def file(self, name: str) -> str:
        """The path or URI of a file, to be named; of a remote one without what identifies somebody."""
        return str(self / _plain(name))

    def has(self, name: str) -> bool:
        return self._place.has(_plain(name))

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is none."""
        return self._place.read(_plain(name))

    def write(self, name: str, content: bytes) -> None:
        self._place.write(_plain(name), content)

    def local(self, name: str) -> str:
        """The path of a file with this content on this machine, to be mapped into memory. Of a remote one that is a
        copy which may be removed once others are fetched: map or open it soon. Raises FileNotFoundError."""
        return self._place.local(_plain(name))

    def names(self) -> list[str]:
        """The files that are complete, sorted."""
        return [entry.name for entry in self.entries()]

    def entries(self) -> list[Entry]:
        """The files that are complete, by name."""
        return sorted(Entry(*found) for found in self._place.files() if found[0][0] != ".")

    def folders(self) -> list[str]:
        """The folders in it, sorted."""
        return sorted(self._place.folders())

    def remove(self, name: str) -> None:
        self._place.remove(_plain(name))

    def remove_all(self) -> None:
        """The folder, with all that is in it."""
        self._place.remove_all()

    def clean(self, older_than_s: float) -> None:
        """Removes what killed writers have left behind so long ago."""
        self._place.clean(older_than_s)

    def arrow(self) -> tuple[str, FileSystem | None]:
        """For those who take pyarrow's filesystems: the path there; None: this machine's."""
        return self._place.arrow()

    @property
    def _place(self) -> OnDisk | InBucket:
        return _place(self.path)


def file_at(place: str) -> tuple[Folder, str]:
    """The folder and the name of a file that is given by its path or URI."""
    whole = Folder.at(place)
    return whole.parent, whole.name


def local_file(place: str) -> str:
    """The path on this machine of a file that is given by its path or URI. Raises FileNotFoundError."""
    if not is_uri(place):
        return place
    folder, name = file_at(place)
    return folder.local(name)


@dataclass(frozen=True)
class OnDisk:
    """Files that are written aside, synced and renamed."""

    path: str

    @property
    def shown(self) -> str:
        return self.path

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
        return str(Path(self.path, name))

    def arrow(self) -> tuple[str, None]:
        return self.path, None

    def files(self) -> list[tuple[str, int, float]]:
        found = []
        for entry in self._there():
            try:
                if entry.is_file():
                    stat = entry.stat()
                    found.append((entry.name, stat.st_size, stat.st_mtime))
            except FileNotFoundError:  # gone since it was listed
                continue
        return found

    def folders(self) -> list[str]:
        return [entry.name for entry in self._there() if entry.is_dir()]

    def _there(self) -> list[os.DirEntry[str]]:
        try:
            return list(os.scandir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        Path(self.path, name).unlink(missing_ok=True)

    def remove_all(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def clean(self, older_than_s: float) -> None:
        for entry in self._there():
            with suppress(FileNotFoundError):
                if entry.is_file() and entry.name[0] == "." and time.time() - entry.stat().st_mtime > older_than_s:
                    os.unlink(entry.path)


@lru_cache(maxsize=1024)
def _place(path: str) -> OnDisk | InBucket:
    return InBucket(address_of(path)) if is_uri(path) else OnDisk(path)


def _plain(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"storage: expected a name within the folder, got {name!r}; join folders with /")
    return name
