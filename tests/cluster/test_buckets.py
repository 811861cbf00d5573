"""Folders in a bucket: of moto's S3 server, with boto3 as the other side."""

import itertools
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from actors import buckets
from actors.checkpoints import Checkpoints
from actors.knowledge import TeacherRequest
from actors.shard_cache import SIZE_VARIABLE, ShardCache
from actors.storage import Entry, Folder, local_file
from tests.cluster.bucket_server import BUCKET, SlowWay, bucket_server
from tests.unit.digits_setup import batches, save_teacher, student, trained, trainer
from tests.unit.store_setup import Counting, stored

MB = 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with open(tmp_path_factory.mktemp("moto") / "log.txt", "w") as log, bucket_server(log) as one:
        yield one


@pytest.fixture
def folder(server, request):
    return Folder(server.uri(re.sub(r"\W", "-", request.node.name)))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "collegium" / "shards"


def prefix(folder: Folder) -> str:
    return buckets.address_of(folder.path).prefix


@contextmanager
def moto_stumbles():
    """Its threads close each other's files now and then; it says so, as an error of its own."""
    try:
        yield
    except OSError as error:
        if "INTERNAL_FAILURE" not in str(error):
            raise


def test_boto3_reads_what_is_written_and_what_it_writes_is_read(server, folder):
    inner = folder / "a" / "b"
    assert not inner.has("x") and inner.names() == [] and inner.folders() == []
    inner.write("x", b"one")
    inner.write("x", b"two")
    key = f"{prefix(folder)}/a/b/x"
    assert server.get(key) == b"two" == inner.read("x") and server.keys(prefix(folder)) == [key]
    server.put(key, b"three")
    server.put(f"{prefix(folder)}/a/empty", b"")
    assert inner.read("x") == b"three" and inner.has("x") and (folder / "a").read("empty") == b""
    inner.remove("x")
    inner.remove("x")
    assert not inner.has("x") and server.keys(f"{prefix(folder)}/a/b") == []
    with pytest.raises(FileNotFoundError):
        inner.read("x")
    assert not folder.has("a"), "a folder is no file"


def test_a_folder_says_what_lies_in_it(server, folder, cache):
    before = time.time()
    for name, content in {"b": b"12345", "a": b"1", ".hidden": b"", "with space & ?#%.x": b"123"}.items():
        folder.write(name, content)
    (folder / "in ner?").write("deep", b"")
    (folder / "another/deeper").write("deep", b"")
    entries = folder.entries()
    assert [(one.name, one.num_bytes) for one in entries] == [("a", 1), ("b", 5), ("with space & ?#%.x", 3)]
    assert all(isinstance(one, Entry) and before - 5 < one.changed_s < time.time() + 5 for one in entries)
    assert folder.names() == ["a", "b", "with space & ?#%.x"]
    assert folder.folders() == ["another", "in ner?"] and (folder / "in ner?").names() == ["deep"]
    assert (folder / "in ner?").read("deep") == b"" and folder.read("with space & ?#%.x") == b"123"
    assert f"{prefix(folder)}/in ner?/deep" in server.keys(prefix(folder))
    inner = folder / "in ner?"
    assert Folder(str(inner)) == inner and inner.parent == folder and inner.name == "in ner?"
    with open(local_file(inner.file("deep")), "rb") as copy:
        assert copy.read() == b""


def test_the_options_stay_with_the_folders(server, folder):
    uri = server.uri("prefix")
    head, _, options = uri.partition("?")
    assert Folder(uri).path == uri and (Folder(uri) / "a" / "b").path == f"{head}/a/b?{options}"
    assert str(Folder(uri) / "a") == f"{head}/a?{options}" and Folder(uri).file("x") == f"{head}/x?{options}"
    assert (Folder(f"{head}/?{options}") / "a").path == f"{head}/a?{options}"
    one = pickle.loads(pickle.dumps(folder))
    assert one == folder and {one: 1}[folder] == 1
    one.write("x", b"1")
    assert Folder(server.uri("")).folders() and Folder(server.uri("")) / prefix(folder) == folder


def test_more_files_than_one_page_lists(server, folder):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: server.put(f"{prefix(folder)}/{number:04d}", b"x"), range(1000)))
        list(pool.map(lambda number: folder.write(f"{number:04d}", b"y"), range(1000, 1030)))
    assert folder.names() == [f"{number:04d}" for number in range(1030)]


def test_a_large_file_goes_there_and_back(server, folder, cache):
    content = os.urandom(20 * MB)
    folder.write("large", content)
    assert server.get(f"{prefix(folder)}/large") == content == folder.read("large")
    with open(folder.local("large"), "rb") as copy:
        assert copy.read() == content
    assert server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_a_reader_never_sees_half_a_file(folder, cache):
    """Every content is another, of another length, and names its length."""

    def content(number: int) -> bytes:
        size = 100 + (number * 7919) % 90_000
        return f"{size:09d}{number:09d}".encode() + b"x" * size

    enough = threading.Event()

    def writing(writer: int) -> None:
        for number in itertools.count():
            if enough.is_set():
                return
            with moto_stumbles():
                folder.write("x", content(number * 2 + writer))

    folder.write("x", content(0))
    writers = [threading.Thread(target=writing, args=(writer,), daemon=True) for writer in range(2)]
    for writer in writers:
        writer.start()
    seen: set[bytes] = set()
    while len(seen) < 12:
        found = []
        with moto_stumbles():
            found.append(folder.read("x"))
            with open(folder.local("x"), "rb") as copy:
                found.append(copy.read())
        for one in found:
            assert len(one) == int(one[:9]) + 18
            seen.add(one)
        assert folder.names() == ["x"] and all(writer.is_alive() for writer in writers)
    enough.set()
    for writer in writers:
        writer.join()


def test_a_file_that_is_replaced_between_its_length_and_its_bytes_is_read_again(folder, monkeypatch):
    folder.write("x", b"short")
    opened, replaced = buckets.InBucket._open, []

    def replacing(self, name):
        stream = opened(self, name)
        if not replaced:
            replaced.append(True)
            folder.write("x", b"much longer than before")
        return stream

    monkeypatch.setattr(buckets.InBucket, "_open", replacing)
    assert folder.read("x") == b"much longer than before"


@pytest.mark.parametrize("size", [8 * MB, 24 * MB], ids=["one put", "parts"])
def test_a_killed_writer_leaves_nothing(server, folder, size):
    folder.write("old", b"old")
    way = SlowWay(server.port, pause_s=0.02)
    far = Folder(server.uri(prefix(folder), port=way.port))
    code = (
        "import sys, threading\nfrom actors.storage import Folder\nfolder = Folder(sys.argv[1])\n"
        "folder.has('old')\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "names = ('new', 'old')\ncontent = b'x' * int(sys.argv[2])\n"
        "for name in names: threading.Thread(target=folder.write, args=(name, content)).start()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, far.path, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout and writer.stdin and writer.stdout.readline() == b"ready\n"
    writer.stdin.write(b"\n")
    writer.stdin.flush()
    while way.carried < size * 0.2:  # the kernel still delivers what it has taken
        assert writer.poll() is None
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    way.close()
    time.sleep(0.5)
    assert folder.names() == ["old"] and folder.read("old") == b"old" and not folder.has("new")


@pytest.mark.parametrize("size", [3 * MB, 24 * MB], ids=["one put", "parts"])
def test_a_write_that_fails_leaves_the_old_file(server, folder, size):
    folder.write("x", b"old")
    way = SlowWay(server.port, most=size * 2 // 3)
    far = Folder(server.uri(prefix(folder), port=way.port))
    for name in ("x", "y"):
        with pytest.raises(ValueError, match=r"storage: .*expected an answer"):
            far.write(name, b"n" * size)
    way.close()
    assert folder.read("x") == b"old" and folder.names() == ["x"]


def test_copies_are_shared_bounded_and_the_least_used_go_first(folder, cache, monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "0.0025")
    paths = {}
    for name in "abc":
        folder.write(name, name.encode() * 1_000_000)
    for age, name in enumerate("ab"):
        paths[name] = folder.local(name)
        os.utime(paths[name], (age, age))
    assert folder.local("a") == paths["a"], "used again: now b is the least recently used"
    paths["c"] = folder.local("c")
    assert {*os.listdir(cache)} == {os.path.basename(paths[name]) for name in "ac"}
    with open(paths["c"], "rb") as copy:
        assert copy.read() == b"c" * 1_000_000


def test_a_file_larger_than_the_bound_is_fetched_all_the_same(folder, cache, monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "0.001")
    folder.write("small", b"s")
    folder.write("large", b"l" * 2_000_000)
    folder.local("small")
    with open(folder.local("large"), "rb") as copy:
        assert copy.read() == b"l" * 2_000_000
    assert len(os.listdir(cache)) == 1
    folder.local("small")
    assert len(os.listdir(cache)) == 1, "and does not stay"


def test_a_copy_is_fetched_once_and_never_of_an_earlier_content(server, folder, cache, monkeypatch):
    folder.write("x", b"one")
    first = folder.local("x")
    monkeypatch.setattr(buckets, "_copy", lambda stream, to: pytest.fail("fetched again"))
    assert folder.local("x") == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    folder.write("x", b"two")
    with open(folder.local("x"), "rb") as copy:
        assert copy.read() == b"two"
    with open(first, "wb"):
        pass
    folder.write("x", b"one")
    with open(folder.local("x"), "rb") as copy:
        assert copy.read() == b"one", "a torn copy is none"
    with pytest.raises(FileNotFoundError):
        folder.local("absent")
    assert not [name for name in os.listdir(cache) if name.startswith(".")]


def test_what_a_killed_process_left_in_the_cache_goes_too(tmp_path):
    cache = ShardCache(tmp_path, 100)
    (tmp_path / ".torn").write_bytes(b"x" * 90)
    os.utime(tmp_path / ".torn", (1, 1))
    with cache.aside(50) as aside:
        aside.write_bytes(b"y" * 50)
        cache.keep(aside, cache.place("y"))
    assert os.listdir(tmp_path) == [cache.place("y").name]


def test_two_that_fetch_at_once_keep_to_the_bound(tmp_path):
    cache = ShardCache(tmp_path, 100)
    with cache.aside(60) as one, cache.aside(60) as other:
        for aside in (one, other):
            aside.write_bytes(b"x" * 60)
        cache.keep(one, cache.place("one"))
        cache.keep(other, cache.place("other"))
    assert os.listdir(tmp_path) == [cache.place("other").name]


def test_a_cache_of_no_size_is_refused(monkeypatch):
    monkeypatch.setenv(SIZE_VARIABLE, "much")
    with pytest.raises(ValueError, match=f"{SIZE_VARIABLE}: expected a number of gigabytes, got 'much'"):
        ShardCache.of_this_machine()


class Killed(Exception):
    pass


def test_a_run_goes_on_from_a_checkpoint_in_a_bucket(server, folder, tmp_path):
    def killing(progress):
        if progress.epoch_done and progress.epoch == 0:
            raise Killed

    spec = student()
    assert Checkpoints(folder).latest() is None
    with pytest.raises(Killed):
        trainer(spec, folder, report=killing).run()
    begun = Checkpoints(folder).latest()
    assert begun is not None and server.keys(prefix(folder)) == [f"{prefix(folder)}/step-000000004.pt"]
    assert trained(spec, folder) == trained(spec, tmp_path / "whole")
    assert len(folder.names()) == 2


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("hdfs://host/x", "expected a folder, s3://bucket/... or gs://bucket/..., got hdfs:..."),
        ("file:///tmp/x", "expected a folder, s3://bucket/... or gs://bucket/..., got file:..."),
        ("s3:/bucket/x", "expected a folder, s3://bucket/... or gs://bucket/..., got s3:..."),
        ("s3:///x", "expected s3://bucket/..., found no name of a bucket after s3://"),
        ("gs://", "expected gs://bucket/..., found no name of a bucket after gs://"),
        ("s3://some:hid/den@bucket/x", "expected s3://bucket/..., found no name of a bucket after s3://"),
        ("s3://bucket/a/../b", "expected folders of the bucket, got '.' or '..' among them"),
        ("s3://bucket/a/%2e%2e/b", "expected folders of the bucket, got '.' or '..' among them"),
        ("s3://bucket/a?secret_key=hidden", "expected the options endpoint_override, region, scheme, got secret_key;"),
        (
            "s3://bucket/a?endpoint_override=me:hidden%40host",
            "expected the options endpoint_override, region, scheme, got one with an @; keys are read from",
        ),
        ("gs://bucket/a?region=x", "expected the options endpoint_override, scheme, got region;"),
    ],
)
def test_a_uri_that_is_none_is_refused(uri, said):
    with pytest.raises(ValueError, match=f"^storage: {re.escape(said)}") as refused:
        Folder(uri)
    assert "hid" not in str(refused.value)


def test_what_identifies_somebody_is_never_shown(server):
    there = server.uri("x").removeprefix("s3://")
    known = Folder(f"s3://someone:hid%2Fden@{there}")
    known.write("x", b"1")
    assert known.read("x") == b"1"
    for shown in (str(known), repr(known), f"{known / 'a'}", known.file("x")):
        assert "hid" not in shown and "someone" not in shown and "s3://***@bucket/x" in shown
    with pytest.raises(ValueError, match=r"there is no nowhere \(of s3://\*\*\*@nowhere\?") as refused:
        Folder(f"s3://someone:hidden@{there.replace('bucket', 'nowhere')}").read("x")
    assert "hidden" not in str(refused.value)


def test_a_bucket_that_is_not_there_is_said_by_every_method(server):
    absent = Folder(server.uri("x", bucket="nowhere"))
    for asking in (
        lambda: absent.has("x"),
        lambda: absent.read("x"),
        lambda: absent.write("x", b""),
        lambda: absent.local("x"),
        lambda: absent.names(),
        lambda: absent.folders(),
        lambda: absent.remove("x"),
    ):
        with pytest.raises(ValueError, match=r"^storage: expected a bucket, there is no nowhere .* make it first"):
            asking()


def test_a_bucket_that_went_away_is_said(server):
    server.client.create_bucket(Bucket="leaving")
    folder = Folder(server.uri("x", bucket="leaving"))
    assert not folder.has("x")
    server.client.delete_bucket(Bucket="leaving")
    with pytest.raises(ValueError, match=r"^storage: expected a bucket, there is no leaving"):
        folder.write("x", b"")


def test_nobody_at_the_endpoint_is_said_soon(server):
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"storage: s3://bucket\?.*got none \(NETWORK_CONN"):
        Folder(server.uri("x", port=1)).has("x")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_endpoint_that_is_silent_is_left_soon(server, monkeypatch, scheme):
    monkeypatch.setattr(buckets, "SILENCE_S", 1.0)
    monkeypatch.setattr(buckets, "GIVE_UP_S", 6.0)
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http"
        with pytest.raises(ValueError, match=r"expected an answer, got none"):
            Folder(f"{scheme}://anonymous@bucket/x?{where}").names()
    assert time.monotonic() - started < 12


def test_an_endpoint_falls_silent_later_and_is_left_soon(server, folder, monkeypatch):
    monkeypatch.setattr(buckets, "SILENCE_S", 1.0)
    way = SlowWay(server.port)
    far = Folder(server.uri(prefix(folder), port=way.port))
    assert far.names() == []
    way.pause_s = 30
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"expected an answer"):
        far.has("x")
    assert time.monotonic() - started < 20
    way.close()


def test_whoever_has_no_right_is_told_which_variables_count():
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def refusing(door):
        while True:
            try:
                one, _ = door.accept()
            except OSError:
                return
            one.recv(65536)
            one.sendall(answer)
            one.close()

    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=refusing, args=(door,), daemon=True).start()
        where = f"endpoint_override=127.0.0.1:{door.getsockname()[1]}&scheme=http&region=us-east-1"
        folder = Folder(f"s3://bucket/x?{where}")
        for asking in (lambda: folder.has("x"), lambda: folder.write("x", b"1"), lambda: folder.names()):
            with pytest.raises(ValueError, match=r"^storage: expected access to s3://bucket/x.*AWS_ACCESS_KEY_ID"):
                asking()


def test_keys_are_missing_at_google(server, monkeypatch):
    monkeypatch.setattr(buckets, "SILENCE_S", 0.5)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(ValueError, match=r"storage: expected access to gs://bucket/x.*GOOGLE_APPLICATION_CREDENTIALS"):
        Folder("gs://bucket/x?endpoint_override=127.0.0.1:1&scheme=http").has("x")


def test_a_store_in_a_bucket_is_read_through_by_everybody(server, folder, tmp_path, cache):
    teacher, request = save_teacher(tmp_path), (TeacherRequest("wide"),)
    inner = Counting(teacher)
    with stored(folder.path, teacher, inner=inner) as source:
        cold = [source.ask(batch, request).result()[0].logits for batch in batches(2)]
    assert inner.rows == {"wide": 48} and source.passes["wide"].written == 48
    shards = [key for key in server.keys(prefix(folder)) if key.endswith(".arrow")]
    assert len(shards) == 1
    with stored(folder.path, teacher) as source:
        warm = [source.ask(batch, request).result()[0].logits for batch in batches(2)]
    assert all(map(torch.equal, cold, warm))
    content = server.get(shards[0])
    server.put(shards[0], content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    again = Counting(teacher)
    with stored(folder.path, teacher, inner=again) as source:
        mended = source.ask(batches(1)[0], request).result()[0].logits
    assert again.rows == {"wide": 24} and torch.equal(mended, cold[0])
    assert [key for key in server.keys(prefix(folder)) if "/set-aside/" in key]
