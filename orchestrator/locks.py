"""Where the locks of a run lie that are for one process at a time."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from actors.storage import Folder


def lock_path(folder: Folder, name: str) -> str:
    """In the folder, for all who see it. A bucket has no locks: of one there, a file of this user on this machine."""
    if not folder.is_remote:
        return folder.file(name)
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    locks = Path(root, "collegium", "locks")
    locks.mkdir(parents=True, exist_ok=True)
    return str(locks / hashlib.sha256(folder.file(name).encode()).hexdigest())
