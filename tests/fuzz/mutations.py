"""Changes to the bytes of a shard, and what a draw of them is made of."""

import random
import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz import shards
from tests.fuzz.shards import ENCODINGS, NUM_ROWS, Shard, shard

NUMBERS = (0, 1, -1, 2, 7, 8, 64, 255, 1 << 15, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 31, 1 << 32)
LARGE = (1 << 40, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, -(1 << 63), (1 << 63) - 8)


class Input(NamedTuple):
    """`must_be_refused`: whatever the bytes are, they are no shard of this piece."""

    shard: Shard
    content: bytes
    label: str
    must_be_refused: bool


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] if rng.random() < 0.5 else content[rng.randrange(1, len(content)) :]


def extended(content: bytes, rng: random.Random) -> bytes:
    more = rng.choice((bytes(8), rng.randbytes(rng.randrange(1, 200)), content, bytes(1 << 12), b"ARROW1"))
    at = rng.choice((len(content), 0, rng.randrange(len(content)), rng.randrange(0, len(content), 8)))
    return content[:at] + more + content[at:]


def sparse(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(0, len(content), 8)
    return content[:at] + bytes(4 << 20) + content[at:]


def swapped(content: bytes, rng: random.Random) -> bytes:
    size = rng.choice((4, 8, 64, 200))
    one, other = sorted(rng.randrange(0, max(1, len(content) - size), 4) for _ in range(2))
    if other - one < size:
        return flipped(content, rng)
    first, second = content[one : one + size], content[other : other + size]
    return content[:one] + second + content[one + size : other] + first + content[other + size :]


def repeated(content: bytes, rng: random.Random) -> bytes:
    """A part in another part's place."""
    size = rng.choice((4, 8, 32))
    source, at = (rng.randrange(0, max(1, len(content) - size), 4) for _ in range(2))
    return content[:at] + content[source : source + size] + content[at + size :]


def forged(content: bytes, rng: random.Random) -> bytes:
    """Whole numbers of the metadata, where they are small enough to be lengths, offsets or counts."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind, size = rng.choice((("<i", 4), ("<q", 8), ("<h", 2)))
        start = rng.choice((0, 0, max(0, len(changed) - 1500)))
        places = range(start, min(len(changed), start + 1600) - size, size)
        plausible = [at for at in places if 0 < struct.unpack_from(kind, changed, at)[0] <= 2 * len(changed)]
        if not plausible:
            continue
        at = rng.choice(plausible)
        (number,) = struct.unpack_from(kind, changed, at)
        near = (number + 1, number - 1, number + 8, number - 8, number * 2, -number, len(changed), len(changed) - at)
        limit = 1 << (8 * size)
        value = rng.choice((*near, *near, *NUMBERS, *LARGE)) % limit
        struct.pack_into(kind, changed, at, value - limit if value >= limit // 2 else value)
    return bytes(changed)


def forged_rows(content: bytes, rng: random.Random, count: int = 0) -> bytes:
    """The number of rows, wherever it is said."""
    changed, said = bytearray(content), struct.pack("<q", count)
    value = rng.choice((0, -1, count + 1, max(0, count - 1), count * 8, *LARGE))
    places = [at for at in range(0, len(content) - 8, 4) if content[at : at + 8] == said]
    for at in rng.sample(places, rng.randrange(1, len(places) + 1)) if places else ():
        struct.pack_into("<q", changed, at, value)
    return bytes(changed)


def crossed(content: bytes, rng: random.Random) -> bytes:
    """The beginning of one file and the end of another."""
    other = shard(rng.choice(ENCODINGS), rng.choice(NUM_ROWS)).content
    at = rng.randrange(8, min(len(content), len(other)), 8)
    return content[:at] + other[at:] if rng.random() < 0.5 else content[:at] + other[-rng.randrange(1, len(other)) :]


BYTES: dict[Callable[[bytes, random.Random], bytes], int] = {
    flipped: 20,
    truncated: 5,
    extended: 5,
    swapped: 8,
    repeated: 8,
    forged: 40,
    crossed: 4,
}
WRITTEN: dict[Callable[[Shard, random.Random], bytes], int] = {
    shards.compressed: 8,
    shards.claims_compression: 6,
    shards.other_schema: 20,
    shards.other_metadata: 5,
    shards.extension_type: 5,
    shards.several_batches: 4,
    shards.nothing: 2,
    shards.stream: 4,
    shards.foreign: 5,
    shards.unbounded: 6,
}
RARE = (shards.bomb, shards.one_key, sparse)


def drawn(seed: str) -> Input:
    """The input of this seed: a valid shard, changed once, or a few times."""
    rng = random.Random(seed)
    one = shard(rng.choice(ENCODINGS), rng.choice(NUM_ROWS))
    if rng.random() < 0.004:
        change = rng.choice(RARE)
        content = sparse(one.content, rng) if change is sparse else change(one, rng)
        return Input(one, content, change.__name__, change is shards.bomb)
    if rng.random() < 0.3:
        (write,) = rng.choices(list(WRITTEN), list(WRITTEN.values()))
        content = write(one, rng)
        if rng.random() < 0.7 or not content:
            return Input(one, content, write.__name__, True)
        return Input(one, forged(content, rng), f"{write.__name__}, forged", False)
    if rng.random() < 0.05:
        return Input(one, forged_rows(one.content, rng, len(one.rows)), "forged_rows", False)
    content, names = one.content, []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        (change,) = rng.choices(list(BYTES), list(BYTES.values()))
        content = change(content, rng) or b"\0"
        names.append(change.__name__)
    return Input(one, content, names[0] if len(names) == 1 else "several", False)
