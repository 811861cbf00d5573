"""Whether an Arrow message says that its body is compressed: which pyarrow does not tell. Standard library only."""

from __future__ import annotations

import struct

HEADER, COMPRESSION = 2, 3
"""Numbers of the fields `Message.header` and `RecordBatch.compression` in Arrow's own schema of messages."""


def is_compressed(message: memoryview) -> bool:
    """`message`: the metadata of a record batch's message, a flatbuffer whose offsets Arrow has verified."""
    header = _field(message, _ahead(message, 0), HEADER)
    return bool(_field(message, _ahead(message, header), COMPRESSION))


def _ahead(message: memoryview, at: int) -> int:
    """Where the table begins to which the offset at this place leads."""
    return at + struct.unpack_from("<I", message, at)[0]


def _field(message: memoryview, table: int, number: int) -> int:
    """Where a field of the table lies, or 0 where it is left out."""
    fields = table - struct.unpack_from("<i", message, table)[0]
    (num_bytes,) = struct.unpack_from("<H", message, fields)
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", message, fields + entry)[0] if entry < num_bytes else 0
    return table + offset if offset else 0
