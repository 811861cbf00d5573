"""Makes an environment of what pyproject.toml names, once: `python scripts/make_environment.py FOLDER`.

Python 3.11 with pip is all it needs. Two at once make one: the second waits.
"""

import fcntl
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def make(folder: Path) -> None:
    done = folder / ".installed"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is making {folder}: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
            sys.exit(f"{folder} is there and no environment; give another folder with VENV=")
        print(f"installing what pyproject.toml names, 6.5 GB, into {folder}: takes minutes", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
        quietly = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *quietly, "pip", *requirements()], check=True)
        done.touch()


def requirements() -> list[str]:
    """What the project depends on, all extras included."""
    import tomllib

    project = tomllib.loads(PROJECT.read_text())["project"]
    return [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - it is run by whatever Python there is
        sys.exit(f"Python 3.11 or newer is needed, {sys.executable} is older; give one with PYTHON=")
    make(Path(sys.argv[1]))
