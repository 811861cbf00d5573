"""Puts Fashion-MNIST where torchvision.datasets.FashionMNIST(root, download=False) looks for them.

    python scripts/get_fashion_mnist.py [root]          # root: data

Fashion-MNIST: Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747; MIT licence. Needs the standard library alone
and no root rights. It tries in turn: gzipped files that somebody put into the folder, the Debian package
where it is installed, torchvision's own download, the Debian package fetched with apt-get. Every file is
checked against its MD5 sum and then renamed into place, so that an interrupted run leaves no half file.
"""

import argparse
import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MD5_SUMS = {  # of the files as unpacked: archives of the same file differ
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
PACKAGE = "dataset-fashion-mnist"
PACKAGE_FOLDER = "usr/share/datasets/fashion-mnist"
SILENCE_S = 10
LIMIT_S = 300
DOWNLOAD = (
    f"import socket; socket.setdefaulttimeout({SILENCE_S}); "
    "from torchvision.datasets import FashionMNIST; FashionMNIST('.', download=True)"
)

Source = Callable[[Path], Path]


class NotToBeHad(Exception):
    """A source has no files, or no source has them; the text says why."""


def provide(folder: Path, md5_sums: Mapping[str, str], sources: Mapping[str, Source]) -> str:
    """Makes every file of `md5_sums` stand in `folder`; says what was done, or raises NotToBeHad."""
    wanted = {name: md5 for name, md5 in md5_sums.items() if md5_of(folder / name) != md5}
    if not wanted:
        return f"{folder}: all {len(md5_sums)} files are there and their checksums agree; nothing to do"
    for name in wanted:
        if (folder / name).exists():
            print(f"{folder / name}: wrong checksum (an interrupted download?), it will be replaced")
    folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        for label, source in sources.items():
            try:
                unpack(source(Path(scratch)), wanted, folder, Path(scratch))
            except NotToBeHad as reason:
                reasons.append(f"{label}: {reason}")
            else:
                return f"{folder}: took {len(wanted)} of {len(md5_sums)} files from {label}; checksums agree"
    raise NotToBeHad(what_to_do(folder, wanted, reasons))


def unpack(found: Path, wanted: Mapping[str, str], folder: Path, scratch: Path) -> None:
    """Unpacks `found`/name.gz (or takes `found`/name), checks all sums, then renames all into `folder`."""
    for name, md5 in wanted.items():
        content = content_of(found, name)
        got = hashlib.md5(content).hexdigest()
        if got != md5:
            raise NotToBeHad(f"{name} has MD5 {got}, expected {md5}; it is not used")
        (scratch / f"{name}.checked").write_bytes(content)
    for name in wanted:
        os.replace(scratch / f"{name}.checked", folder / name)


def content_of(found: Path, name: str) -> bytes:
    packed = found / f"{name}.gz"
    try:
        return gzip.decompress(packed.read_bytes()) if packed.exists() else (found / name).read_bytes()
    except FileNotFoundError:
        raise NotToBeHad(f"no {name}.gz there") from None
    except (OSError, EOFError) as error:  # a damaged archive: gzip.BadGzipFile is an OSError
        raise NotToBeHad(f"{packed} cannot be unpacked ({error}); delete it") from None


def md5_of(path: Path) -> str | None:
    return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else None


def what_to_do(folder: Path, wanted: Mapping[str, str], reasons: Sequence[str]) -> str:
    return "\n".join(
        [
            "Fashion-MNIST could not be had:",
            *(f"  - {reason}" for reason in reasons),
            f"Put these files, gzipped or not, into {folder.absolute()} and run this again:",
            *(f"  {name}.gz   (unpacked: MD5 {md5})" for name, md5 in wanted.items()),
            "They are to be had from the repository zalandoresearch/fashion-mnist, or on Debian or",
            f"Ubuntu by `sudo apt-get install {PACKAGE}`: this command finds them then.",
        ]
    )


def run(command: Sequence[str], folder: Path) -> None:
    """Runs a command in `folder`; raises NotToBeHad with its last line where it fails or takes too long."""
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=LIMIT_S, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"{Path(command[0]).name} was not ready after {LIMIT_S} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise NotToBeHad(f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1]}")


def installed_package(scratch: Path) -> Path:
    found = Path("/", PACKAGE_FOLDER)
    if not found.is_dir():
        raise NotToBeHad(f"no folder {found}")
    return found


def torchvision_download(scratch: Path) -> Path:
    """A process of its own: it can be ended when it hangs, and this one needs no torch."""
    if importlib.util.find_spec("torchvision") is None:
        raise NotToBeHad("torchvision is not installed")
    print("trying torchvision's download (31 MB) ...", flush=True)
    run([sys.executable, "-c", DOWNLOAD], scratch)
    return scratch / "FashionMNIST" / "raw"


def debian_package(scratch: Path) -> Path:
    """`apt-get download` by the machine's package lists, or else by lists fetched into the scratch folder."""
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        raise NotToBeHad(f"this machine has no {missing[0]}")
    print(f"trying the Debian package {PACKAGE} (31 MB) ...", flush=True)
    apt_get = ["apt-get", "-qq", "-o", f"Acquire::http::Timeout={SILENCE_S}", "-o", "APT::Sandbox::User=root"]
    try:
        run([*apt_get, "download", PACKAGE], scratch)
    except NotToBeHad:
        apt_get += own_apt_folders(scratch)
        run([*apt_get, "update"], scratch)
        run([*apt_get, "download", PACKAGE], scratch)
    archive = next(scratch.glob(f"{PACKAGE}_*.deb"))
    run(["dpkg-deb", "-x", archive.name, "package"], scratch)
    return scratch / "package" / PACKAGE_FOLDER


def own_apt_folders(scratch: Path) -> list[str]:
    lists, cache = scratch.absolute() / "lists", scratch.absolute() / "cache"
    (lists / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    return ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", nargs="?", default="data", type=Path, help="torchvision's root folder (default: data)")
    folder = parser.parse_args(arguments).root / "FashionMNIST" / "raw"
    sources = {
        "gzipped files in that folder": lambda scratch: folder,
        f"the installed package {PACKAGE}": installed_package,
        "torchvision's download": torchvision_download,
        f"the Debian package {PACKAGE}": debian_package,
    }
    try:
        print(provide(folder, MD5_SUMS, sources))
    except (NotToBeHad, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
