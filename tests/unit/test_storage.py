"""Files are seen whole or not at all; of checkpoints the newest counts."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from actors.checkpoints import Checkpoints
from actors.storage import Folder, file_at, local_file
from orchestrator.config import ExperimentConfig
from orchestrator.locks import lock_path
from orchestrator.pools import alone
from orchestrator.trees import fetch, write_tree


def test_what_is_written_is_read(tmp_path):
    folder = Folder(str(tmp_path)) / "a" / "b"
    assert not folder.has("x") and folder.names() == []
    folder.write("x", b"one")
    folder.write("x", b"two")
    assert folder.has("x") and folder.read("x") == b"two" and folder.names() == ["x"]
    assert str(folder) == str(tmp_path / "a" / "b") and folder.file("x") == str(tmp_path / "a" / "b" / "x")
    folder.remove("x")
    folder.remove("x")
    assert not folder.has("x")


def test_a_write_that_fails_halfway_leaves_the_old_file_and_no_trace(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    folder.write("x", b"old")

    def full(descriptor):
        assert (tmp_path / "x").read_bytes() == b"old", "the new content lies aside while it is written"
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        folder.write("x", b"new" * 1000)
    with pytest.raises(OSError, match="no space"):
        folder.write("y", b"new")
    assert folder.read("x") == b"old" and os.listdir(tmp_path) == ["x"]


def test_what_a_killed_writer_left_behind_is_not_seen(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write("step-000000001.pt", b"whole")
    (tmp_path / ".step-000000002.pt.0123").write_bytes(b"hal")
    (tmp_path / "folder").mkdir()
    assert folder.names() == ["step-000000001.pt"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    folder, contents = Folder(str(tmp_path)), [bytes([letter]) * 100_000 for letter in b"abc"]
    folder.write("x", contents[0])

    def writing(content):
        for _ in range(20):
            folder.write("x", content)

    writers = [threading.Thread(target=writing, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(folder.read("x"))
        assert folder.names() == ["x"]
    assert seen <= set(contents)


def test_the_newest_checkpoint_wins_and_two_are_kept(tmp_path):
    checkpoints = Checkpoints(Folder(str(tmp_path / "checkpoints")))
    assert checkpoints.latest() is None
    for steps in (2, 9, 10, 100):
        checkpoints.save(steps, {"steps": steps, "weights": {"a": torch.full((2,), float(steps))}})
        latest = checkpoints.latest()
        assert latest is not None and latest["steps"] == steps and latest["weights"]["a"].tolist() == [steps] * 2
    assert checkpoints.folder.names() == ["step-000000010.pt", "step-000000100.pt"]


def test_the_same_step_is_written_over(tmp_path):
    checkpoints = Checkpoints(Folder(str(tmp_path)))
    checkpoints.save(4, {"epoch": 0})
    checkpoints.save(4, {"epoch": 1})
    assert checkpoints.latest() == {"epoch": 1} and len(checkpoints.folder.names()) == 1


def test_a_half_written_checkpoint_is_never_the_latest(tmp_path, monkeypatch):
    checkpoints = Checkpoints(Folder(str(tmp_path)))
    checkpoints.save(4, {"epoch": 0})
    (tmp_path / ".step-000000005.pt.0123").write_bytes((tmp_path / "step-000000004.pt").read_bytes()[:100])
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        checkpoints.save(6, {"epoch": 1})
    assert checkpoints.latest() == {"epoch": 0}


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    checkpoints = Checkpoints(Folder(str(tmp_path)))
    trap = tmp_path / "it-ran"
    checkpoints.save(1, {"state": Payload(str(trap))})
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        checkpoints.latest()
    assert not trap.exists()


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\0b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    for folder in (Folder(str(tmp_path / "in")), Folder("s3://bucket/in")):
        for asking in (
            lambda: folder.file(name),  # noqa: B023
            lambda: folder.has(name),  # noqa: B023
            lambda: folder.read(name),  # noqa: B023
            lambda: folder.write(name, b""),  # noqa: B023
            lambda: folder.remove(name),  # noqa: B023
            lambda: folder.local(name),  # noqa: B023
        ):
            with pytest.raises(ValueError, match="storage: expected a name within the folder"):
                asking()
        if name != "a/b":
            with pytest.raises(ValueError, match="storage: expected a name within the folder"):
                folder / name
    assert not list(tmp_path.iterdir())


def test_folders_within_folders_are_joined(tmp_path):
    folder = Folder(str(tmp_path))
    assert folder / "a/b" == folder / "a" / "b" and pickle.loads(pickle.dumps(folder / "a")) == folder / "a"
    (folder / "a/b").write("x", b"1")
    assert (tmp_path / "a/b/x").read_bytes() == b"1" and folder.local("a.b") == str(tmp_path / "a.b")


def test_files_that_vanish_while_they_are_listed_are_left_out(tmp_path, monkeypatch):
    folder = Folder(str(tmp_path))
    folder.write("stays", b"12")
    folder.write("goes", b"1")
    listed = os.scandir

    def then_one_goes(path):
        found = list(listed(path))
        (tmp_path / "goes").unlink()
        return found

    monkeypatch.setattr(os, "scandir", then_one_goes)
    assert [(one.name, one.num_bytes) for one in folder.entries()] == [("stays", 2)]


def test_a_folder_on_disk_loads_no_pyarrow(tmp_path):
    code = (
        "import sys\nfrom actors.storage import Folder\nfolder = Folder(sys.argv[1])\nfolder.write('x', b'1')\n"
        "folder.read('x'), folder.entries(), folder.local('x'), Folder('s3://bucket/x') / 'y'\n"
        "assert 'pyarrow' not in sys.modules, 'pyarrow'"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_knows_its_name_and_what_it_lies_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("real")
    assert Folder.at("link").path == str(tmp_path / "link") and Folder.found_at("link").path == str(tmp_path / "real")
    for place in (str(tmp_path), "s3://bucket/x?region=eu"):
        folder = Folder.at(place) / "a" / "b"
        assert folder.name == "b" and folder.parent.parent == Folder.at(place) == Folder.found_at(place)
        assert file_at(folder.file("c.txt")) == (folder, "c.txt")
    assert local_file("some/file") == "some/file"


def test_locks_of_a_bucket_lie_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, other = Folder("s3://bucket/run"), Folder("s3://bucket/other")
    assert lock_path(Folder(str(tmp_path)), ".lock") == str(tmp_path / ".lock")
    with alone(one), alone(other), pytest.raises(ValueError, match="is under way already"), alone(Folder(one.path)):
        pass
    assert len({lock_path(one, "a"), lock_path(one, "b"), lock_path(other, "a")}) == 3


def test_a_tree_of_files_goes_to_storage_and_back(tmp_path):
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "a").write_bytes(b"1")
    (tmp_path / "tree" / "inner" / "b").write_bytes(b"2")
    folder, back = Folder(str(tmp_path / "stored")), tmp_path / "back"
    back.mkdir()
    write_tree(tmp_path / "tree", folder / "tree")
    assert (fetch(folder, "tree", back) / "inner" / "b").read_bytes() == b"2"
    assert fetch(folder / "tree", "a", back).read_bytes() == b"1"
    with pytest.raises(FileNotFoundError):
        fetch(folder, "absent", back)


@pytest.mark.parametrize("uri", ["s3://bucket/runs?endpoint_override=host:9000&scheme=http", "gs://anonymous@bucket/x"])
def test_a_config_takes_a_bucket_for_its_storage(uri):
    config = ExperimentConfig.from_yaml(Path(__file__).with_name("digits.yaml"), [f"storage={uri}"])
    assert config.storage == uri


def test_a_config_takes_no_keys():
    with pytest.raises(ValueError, match=r"storage: expected no keys in the URI; .* AWS_ACCESS_KEY_ID") as refused:
        ExperimentConfig.from_yaml(
            Path(__file__).with_name("digits.yaml"), ["tracking.send=false", "storage=s3://someone:hidden@bucket/x"]
        )
    assert "hidden" not in str(refused.value)
