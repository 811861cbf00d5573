"""Folders of files that others make or want as a whole on this machine: to storage and back."""

from __future__ import annotations

from pathlib import Path

from actors.storage import Folder


def write_tree(source: Path, to: Folder) -> None:
    """All files of a folder on this machine, one by one."""
    for path in sorted(source.iterdir()):
        if path.is_dir():
            write_tree(path, to / path.name)
        else:
            to.write(path.name, path.read_bytes())


def fetch(folder: Folder, name: str, into: Path) -> Path:
    """A file or a folder of files, under its own name in `into`. Raises FileNotFoundError where there is none."""
    if folder.has(name):
        into.joinpath(name).write_bytes(folder.read(name))
    else:
        _fetch_all(folder / name, into / name)
    return into / name


def _fetch_all(folder: Folder, into: Path) -> None:
    names, folders = folder.names(), folder.folders()
    if not names and not folders:
        raise FileNotFoundError(str(folder))
    into.mkdir()
    for name in names:
        into.joinpath(name).write_bytes(folder.read(name))
    for name in folders:
        _fetch_all(folder / name, into / name)
