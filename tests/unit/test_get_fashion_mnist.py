import gzip
import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "get_fashion_mnist.py"
CONTENT = {"images": b"many pixels", "labels": b"few labels"}
MD5_SUMS = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}

script = runpy.run_path(str(SCRIPT))
provide, NotToBeHad = script["provide"], script["NotToBeHad"]


def write(folder: Path, content: dict[str, bytes], packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(data) if packed else data)
    return folder


def never(scratch: Path) -> Path:
    raise AssertionError("no source should have been asked")


def fails(scratch: Path) -> Path:
    raise NotToBeHad("the network is down")


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_that_are_there_are_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", CONTENT)
    assert "nothing to do" in provide(folder, MD5_SUMS, {"network": never})


@pytest.mark.parametrize("packed", [False, True])
def test_an_empty_folder_is_filled_from_the_first_source_that_has_the_files(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "data" / "raw"
    found = write(tmp_path / "found", CONTENT, packed)
    line = provide(folder, MD5_SUMS, {"down": fails, "good": lambda scratch: found, "later": never})
    assert "took 2 of 2 files from good" in line
    assert read(folder) == CONTENT
    assert os.listdir(folder.parent) == ["raw"]  # nothing is left of the scratch folder


def test_a_corrupt_file_is_replaced_and_a_good_one_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "raw", {"images": b"many", "labels": CONTENT["labels"]})
    before = (folder / "labels").stat().st_mtime_ns
    found = write(tmp_path / "found", {"images": CONTENT["images"]})
    assert "took 1 of 2" in provide(folder, MD5_SUMS, {"good": lambda scratch: found})
    assert "images: wrong checksum" in capsys.readouterr().out
    assert read(folder) == CONTENT
    assert (folder / "labels").stat().st_mtime_ns == before


def test_a_source_with_a_wrong_file_gives_none(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    found = write(tmp_path / "found", {**CONTENT, "labels": b"forged"})
    with pytest.raises(NotToBeHad, match=r"bad: labels has MD5 .*, expected .*; it is not used"):
        provide(folder, MD5_SUMS, {"bad": lambda scratch: found})
    assert read(folder) == {}


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    found = write(tmp_path / "found", CONTENT, packed=True)
    (found / "labels.gz").write_bytes(gzip.compress(CONTENT["labels"])[:-5])
    with pytest.raises(NotToBeHad, match=r"labels\.gz cannot be unpacked .*; delete it"):
        provide(tmp_path / "raw", MD5_SUMS, {"bad": lambda scratch: found})


def test_an_interrupted_run_leaves_no_file(tmp_path: Path) -> None:
    def interrupted(scratch: Path) -> Path:
        write(scratch, CONTENT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provide(tmp_path / "data" / "raw", MD5_SUMS, {"slow": interrupted})
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "raw"]


def test_without_any_source_it_says_which_files_to_put_where(tmp_path: Path) -> None:
    """The real command, isolated from the environment's packages and programs."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, tmp_path], env={"PATH": ""}, capture_output=True, text=True
    )
    folder = tmp_path / "FashionMNIST" / "raw"
    if Path("/", script["PACKAGE_FOLDER"]).is_dir():
        pytest.skip("the Debian package is installed here: the files can always be had")
    assert done.returncode == 1
    assert f"into {folder}" in done.stderr
    assert "torchvision is not installed" in done.stderr
    assert "this machine has no apt-get" in done.stderr
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert read(folder) == {}


def test_the_sums_are_of_the_files_that_torchvision_reads() -> None:
    expected = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    assert list(script["MD5_SUMS"]) == expected
