"""Writing into a store: killed, at once, torn, without room; and the claims of those who compute at once. No Ray."""

import resource
import signal
import threading
import time
from dataclasses import replace

import pytest

from actors.knowledge import TeacherRequest
from actors.store import claims
from actors.store.claims import ClaimsBook
from actors.store.keys import pieces
from actors.top_k import top_k_reduction
from tests.fuzz.writers import ASKED, FORK, Checked, Truth, at_once, kills, two_epochs, wide_teacher, write_all
from tests.unit.digits_setup import NETS, SOFT, batches, save_teacher, student, trained
from tests.unit.store_setup import Counting, store_spec, stored
from tests.unit.test_claims import Client
from tests.unit.test_store import MAP, asked


def test_killed_writers_leave_whole_rows_and_what_is_missing_alone_is_computed(tmp_path):
    assert len(kills(4, tmp_path)) == 4


def test_several_write_at_once_while_others_read(tmp_path):
    truth = Truth(wide_teacher(tmp_path), two_epochs())
    checked, store = Checked(truth), tmp_path / "store"
    orders = range(8), range(7, -1, -1), (2, 3, 4, 5, 6, 7, 0, 1)
    writers = [at_once(write_all, store, truth, order) for order in orders]
    while any(writer.is_alive() for writer in writers):
        checked.rows_in(store)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert checked.rows_in(store) == checked.num_rows
    assert write_all(store, truth, range(8))["read"] == checked.num_rows


@pytest.mark.parametrize("change", ["torn", "altered", "emptied"])
def test_a_bad_shard_is_set_aside_by_name_and_its_rows_are_computed_again(tmp_path, caplog, change):
    teacher, store = save_teacher(tmp_path), tmp_path / "store"
    for part in (slice(0, 2), slice(2, 4)):
        with stored(store, teacher, inner=Counting(teacher)) as source:
            asked(source, batches(4)[part], TeacherRequest("wide"))
    shard = sorted(store.glob("*/*.arrow"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes({"torn": content[:-1], "altered": content, "emptied": b""}[change])
    inner = Counting(teacher)
    with stored(store, teacher, inner=inner) as source:
        asked(source, batches(4), TeacherRequest("wide"))
    assert inner.rows == {"wide": 48} and vars(source.passes["wide"])["written"] == 48
    assert [record.levelname for record in caplog.records] == ["WARNING"] and str(shard) in caplog.text
    assert (shard.parent / "set-aside" / shard.name).stat().st_size == (
        {"torn": len(content) - 1, "altered": len(content), "emptied": 0}[change]
    )
    with stored(store, teacher) as source:
        asked(source, batches(4), TeacherRequest("wide"))


def test_several_who_find_the_same_bad_shard_at_once_all_go_on(tmp_path):
    teacher, store, failed = save_teacher(tmp_path), tmp_path / "store", []
    with stored(store, teacher, inner=Counting(teacher)) as source:
        asked(source, batches(4), TeacherRequest("wide"))
    (shard,) = store.glob("*/*.arrow")
    whole = shard.read_bytes()

    def reading():
        try:
            with stored(store, teacher, inner=Counting(teacher)) as source:
                asked(source, batches(4), TeacherRequest("wide"))
        except BaseException as error:
            failed.append(error)

    for _ in range(3):
        shard.write_bytes(whole[:-1])
        readers = [threading.Thread(target=reading) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert not failed
    with stored(store, teacher, inner=Counting(teacher)) as source:
        asked(source, batches(4), TeacherRequest("wide"))
    with stored(store, teacher) as source:
        asked(source, batches(4), TeacherRequest("wide"))


def test_one_of_two_pieces_written_is_no_empty_shard(tmp_path, caplog):
    """A writer that was killed between the two leaves the tap without the logits."""
    teacher, store = save_teacher(tmp_path, "cnn", NETS["tiny_cnn"]), tmp_path / "store"
    request = TeacherRequest("cnn", True, (), None, (MAP, top_k_reduction(3)))
    with stored(store, teacher, inner=Counting(teacher)) as source:
        asked(source, batches(1), request)
    for piece in pieces(request, teacher, store_spec(store, teacher)):
        (shard,) = (store / piece.key).glob("*.arrow")
        content = shard.read_bytes()
        shard.unlink()
        with stored(store, teacher, inner=Counting(teacher)) as source:
            asked(source, batches(1), request)
        assert shard.read_bytes() == content and not caplog.records


def without_room(store, truth, limit, results):
    """Files of more than `limit` bytes cannot be written."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    source = stored(store, truth.teacher, inner=Counting(truth.teacher))
    with source:
        answers = [source.ask(batch, (ASKED,)).result()[0] for batch in truth.batches]
        kept = sum(len(shelf._unwritten) + len(shelf._segments) for shelf in source._shelves.values())
        source._writer.flush()
        kept_after = sum(len(shelf._unwritten) for shelf in source._shelves.values())
    direct = truth.answers()
    equal = all(
        (a.tensors[name] == b.tensors[name]).all() for a, b in zip(answers, direct, strict=True) for name in b.tensors
    )
    results.put((bool(equal), vars(source.passes["wide"]), source._writer.ended, kept, kept_after))


def test_without_room_the_answers_go_on_and_it_is_said_why_nothing_is_written(tmp_path):
    truth = Truth(wide_teacher(tmp_path), two_epochs())
    results = FORK.SimpleQueue()
    process = at_once(without_room, tmp_path / "store", truth, 30_000, results)
    equal, passes, ended, kept, kept_after = results.get()
    process.join()
    assert equal and "File too large" in ended
    assert passes["written"] == 0 and passes["asked"] == 192 == passes["read"] + passes["computed"]
    assert kept <= 2 and kept_after == 0, "what cannot be written is not kept"
    assert not list((tmp_path / "store").glob("*/.*")), "no half files"
    assert Checked(truth).rows_in(tmp_path / "store") < 192


def test_a_student_is_the_same_where_nothing_can_be_written(tmp_path):
    teacher, store = save_teacher(tmp_path), tmp_path / "store"
    spec = student([teacher], [SOFT], epochs=3)
    plain = trained(spec, tmp_path / "plain")
    (piece,) = pieces(TeacherRequest("wide"), teacher, store_spec(store, teacher))
    store.mkdir()
    (store / piece.key).write_text("a file where the shards' folder would be")
    told = []
    source = stored(store, teacher, inner=Counting(teacher))
    source._tell = lambda passes, ended: told.append(ended)
    with source:
        assert trained(spec, tmp_path / "run", source) == plain
    assert told[-1] and piece.key in told[-1]
    assert source.passes["wide"].written == 0 and source.passes["wide"].computed > 192, "asked again in the third epoch"


def in_threads(*acts, within_s=60):
    failed = []

    def run(act):
        try:
            act()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(act,), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within_s)
    assert not failed and not any(thread.is_alive() for thread in threads), failed


@pytest.mark.parametrize("orders", [(range(8), range(8)), (range(8), range(7, -1, -1))], ids=["same", "opposite"])
def test_two_who_ask_at_once_compute_every_row_once(tmp_path, orders):
    teacher, several, book = save_teacher(tmp_path), two_epochs(), ClaimsBook()
    inners, got = (Counting(teacher), Counting(teacher)), ({}, {})

    def asking(which):
        def act():
            with stored(tmp_path / "store", teacher, inner=inners[which], claims=Client(book, str(which))) as source:
                waiting = []
                for number in orders[which]:
                    waiting.append((number, source.ask(several[number], (TeacherRequest("wide"),))))
                    if len(waiting) > 2:
                        at, answer = waiting.pop(0)
                        got[which][at] = answer.result()[0].logits
                for at, answer in waiting:
                    got[which][at] = answer.result()[0].logits

        return act

    in_threads(asking(0), asking(1))
    assert sum(inner.rows["wide"] for inner in inners) == 192
    assert all((got[0][at] == got[1][at]).all() for at in range(8))


def test_what_one_who_died_had_claimed_is_computed_by_others(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", 1.0)
    teacher, book, inner = save_teacher(tmp_path), ClaimsBook(), Counting(save_teacher(tmp_path))
    dead = stored(tmp_path / "store", teacher, inner=Counting(teacher), claims=Client(book, "dead"))
    dead.ask(batches(1)[0], (TeacherRequest("wide"),))
    dead._writer._closing.set()
    dead._writer._thread.join()
    start = time.monotonic()
    with stored(tmp_path / "store", teacher, inner=inner, claims=Client(book, "other")) as source:
        asked(source, batches(1), TeacherRequest("wide"))
    assert inner.rows == {"wide": 24} and time.monotonic() - start > 0.5


def test_what_others_wrote_is_seen_by_every_shelf(tmp_path):
    """News that came with one teacher's rows are news of the other teacher's too."""
    teacher, other = save_teacher(tmp_path), save_teacher(tmp_path, "cnn", NETS["tiny_cnn"])
    book, several = ClaimsBook(), batches(2)
    inner = Counting(teacher, other)
    mine = stored(tmp_path / "store", teacher, other, inner=inner, claims=Client(book, "mine"))
    with mine:
        asked(mine, several[:1], TeacherRequest("wide"), TeacherRequest("cnn"))
        mine._writer.flush()
        theirs = stored(
            tmp_path / "store", teacher, other, inner=Counting(teacher, other), claims=Client(book, "theirs")
        )
        with theirs:
            asked(theirs, several[1:], TeacherRequest("wide"), TeacherRequest("cnn"))
        asked(mine, several[1:], TeacherRequest("wide"))
        asked(mine, several[1:], TeacherRequest("cnn"))
    assert inner.rows == {"wide": 24, "cnn": 24}


def test_two_teachers_of_the_same_weights_may_be_asked_about_different_rows(tmp_path):
    teacher = save_teacher(tmp_path)
    twin = replace(teacher, name="twin")
    inner = Counting(teacher, twin)
    with stored(tmp_path / "store", teacher, twin, inner=inner, claims=Client(ClaimsBook(), "one")) as source:
        requests = TeacherRequest("wide", rows=(0, 1, 2)), TeacherRequest("twin", rows=(5, 6, 7, 8, 9))
        got = asked(source, batches(1), *requests)
    assert [len(one.logits) for one in got[0]] == [3, 5]
