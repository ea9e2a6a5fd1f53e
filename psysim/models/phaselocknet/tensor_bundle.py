"""Reading TensorFlow V2 checkpoints (``<prefix>.index`` and ``<prefix>.data-00000-of-00001``) without TensorFlow.

The index is a sorted table of string keys (the format of LevelDB): a footer names the index block, whose entries name
the data blocks; in a block each key shares a prefix with the one before. A value is a protocol-buffer message that says
type, shape, shard, offset, size and checksum of one tensor; the shards hold raw little-endian numbers. Everything read
is checked against its checksum.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from psysim.errors import StoreError

__all__ = ["Bundle"]

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
TRAILER = 5  # compression and checksum behind each block
MASK_DELTA = 0xA282EAD8
#: TensorFlow's numbers of the types that weights can have
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 10: "?", 14: "bfloat16", 19: "<f2"}


@dataclass(frozen=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int


class Bundle:
    """The tensors of one checkpoint.

    Parameters
    ----------
    prefix : str or Path
        Path of the checkpoint without ``.index``.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Shape of every tensor, by its name in the checkpoint.

    Raises
    ------
    StoreError
        If a file is missing, damaged, or of a kind that is not supported.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        self._index = self.prefix.with_name(f"{self.prefix.name}.index")
        try:
            table = self._index.read_bytes()
        except OSError as error:
            raise StoreError(f"{self._index} cannot be read: {error.strerror}.") from error
        try:
            values = dict(_table(table))
            header = _message(values.pop(b"", b""))
            self._n_shards = header.get(1, 0)
            self._entries = {key.decode(): _entry(value) for key, value in values.items()}
        except (ValueError, IndexError, struct.error) as error:
            raise StoreError(f"{self._index} is damaged or is no checkpoint index: {error}.") from error
        if header.get(2, 0) != 0:
            raise StoreError(f"{self._index}: the numbers are big-endian, which is not supported.")
        self.shapes = {name: entry.shape for name, entry in self._entries.items()}

    def read(self, name: str) -> NDArray[np.generic]:
        """Return the tensor called ``name``; its checksum is checked.

        Raises
        ------
        StoreError
            If there is none, its type is not supported, or its bytes are missing or damaged.
        """
        if name not in self._entries:
            raise StoreError(f"{self.prefix} has no tensor '{name}'.")
        entry = self._entries[name]
        kind = DTYPES.get(entry.dtype)
        if kind is None:
            raise StoreError(f"{self.prefix}: '{name}' has TensorFlow's type {entry.dtype}, which is not supported.")
        width = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._n_shards:05d}")
        try:
            with path.open("rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.size)
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
        if len(data) != entry.size or entry.size != width * math.prod(entry.shape):
            raise StoreError(f"{path} is too short for '{name}', or its index does not belong to it.")
        if _masked(data) != entry.checksum:
            raise StoreError(f"{path} is damaged: the checksum of '{name}' is wrong. Copy the checkpoint again.")
        if kind == "bfloat16":  # the upper half of a float32
            words = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
            return words.view(np.float32).reshape(entry.shape)
        return np.frombuffer(data, dtype=kind).reshape(entry.shape)


def _masked(data: bytes) -> int:
    """Return the checksum of ``data`` as TensorFlow stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def _table(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(table) < FOOTER or struct.unpack_from("<Q", table, len(table) - 8)[0] != MAGIC:
        raise ValueError("it does not end as such a table does")
    footer = len(table) - FOOTER
    _, place = _varint(table, footer)  # offset and size of the meta-index, not needed
    _, place = _varint(table, place)
    for _, handle in _block(table, *_handle(table, place)):
        yield from _block(table, *_handle(handle, 0))


def _handle(data: bytes, place: int) -> tuple[int, int]:
    offset, place = _varint(data, place)
    size, _ = _varint(data, place)
    return offset, size


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Give keys and values of the block at ``offset``."""
    block = table[offset : offset + size]
    compression, checksum = struct.unpack_from("<BI", table, offset + size)
    if _masked(table[offset : offset + size + 1]) != checksum:
        raise ValueError("the checksum of a block is wrong")
    if compression != 0:
        raise ValueError("a block is compressed, as TensorFlow 1.0 and 1.1 did: save it with a later one")
    (n_restarts,) = struct.unpack_from("<I", block, size - 4)
    place, end, key = 0, size - 4 - 4 * n_restarts, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + own]
        place += own
        yield key, block[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the number of variable length at ``place`` and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Give number and value of each field of a protocol-buffer message."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        wire = tag & 7
        value: int | bytes
        if wire == 0:
            value, place = _varint(data, place)
        elif wire == 2:
            length, place = _varint(data, place)
            value, place = data[place : place + length], place + length
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, place = int.from_bytes(data[place : place + width], "little"), place + width
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
        yield tag >> 3, value


def _message(data: bytes) -> dict[int, int]:
    return {number: value for number, value in _fields(data) if isinstance(value, int)}


def _entry(data: bytes) -> _Entry:
    numbers = _message(data)
    shape: tuple[int, ...] = ()
    for number, value in _fields(data):
        if number == 2 and isinstance(value, bytes):
            shape = tuple(
                _message(dim).get(1, 0) for field, dim in _fields(value) if field == 2 and isinstance(dim, bytes)
            )
        if number == 7:
            raise ValueError("a tensor is stored in slices")
    return _Entry(
        dtype=numbers.get(1, 0),
        shape=shape,
        shard=numbers.get(3, 0),
        offset=numbers.get(4, 0),
        size=numbers.get(5, 0),
        checksum=numbers.get(6, 0),
    )
