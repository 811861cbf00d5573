"""Who computes what: granted once, released, and taken over from those who are not heard any more. No Ray."""

from threading import Lock

import numpy as np
import pytest

from actors.store.claims import LEASE_S, ClaimsBook


class Client:
    """One of several, in threads, that share a book."""

    lock = Lock()

    def __init__(self, book: ClaimsBook, name: str) -> None:
        self.book, self.name = book, name

    def claim(self, rows):
        with self.lock:
            return self.book.claim(self.name, rows)

    def release(self, rows):
        with self.lock:
            self.book.release(self.name, rows)

    def is_waited_for(self):
        with self.lock:
            return self.book.is_waited_for(self.name)


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def rows(*keys, judge="j"):
    return {judge: np.array(keys, dtype=np.uint64)}


def granted(book, client, *keys, judge="j"):
    return book.claim(client, rows(*keys, judge=judge)).rows[judge].tolist()


@pytest.fixture
def clock():
    return Clock()


def test_a_row_is_granted_to_one_alone_and_to_him_again(clock):
    book = ClaimsBook(clock)
    assert granted(book, "a", 1, 2) == [True, True]
    assert granted(book, "b", 2, 3) == [False, True]
    assert granted(book, "a", 1, 3) == [True, False]
    assert granted(book, "b", 1, judge="another teacher") == [True]


def test_what_is_released_is_free_and_others_cannot_release_it(clock):
    book = ClaimsBook(clock)
    granted(book, "a", 1, 2)
    book.release("b", rows(1, 2, 9))
    book.release("b", rows(1, judge="nobody's"))
    assert granted(book, "b", 1, 2) == [False, False]
    book.release("a", rows(1))
    assert granted(book, "b", 1, 2) == [True, False]


def test_the_version_counts_what_was_released(clock):
    book = ClaimsBook(clock)
    first = book.claim("a", rows(1)).version
    book.release("a", rows(1))
    assert book.claim("b", rows(1)).version == book.claim("b", rows(2)).version == first + 1


def test_the_claims_of_one_who_is_not_heard_end_with_his_lease(clock):
    book = ClaimsBook(clock)
    granted(book, "a", 1)
    clock.now_s += LEASE_S - 1
    assert granted(book, "b", 1) == [False]
    book.is_waited_for("a")
    clock.now_s += LEASE_S - 1
    assert granted(book, "b", 1) == [False], "he was heard"
    clock.now_s += 1
    assert granted(book, "b", 1) == [True]
    book.release("a", rows(1))
    assert granted(book, "a", 1) == [False], "it is the other's now"


def test_who_is_waited_for_is_told_once(clock):
    book = ClaimsBook(clock)
    granted(book, "a", 1)
    assert not book.is_waited_for("a")
    granted(book, "b", 1)
    assert not book.is_waited_for("b")
    assert book.is_waited_for("a") and not book.is_waited_for("a")
