"""TFRecord files and the `tf.train.Example` messages in them, without TensorFlow.

A file is a row of records: length (8 bytes, little endian), masked CRC-32C of these 8 bytes, content, masked CRC-32C of
the content. An Example is a protocol buffer: a map from feature name to a list of byte strings, floats or integers.

Source: TensorFlow's `tfrecord` guide and `example.proto`; protocol buffers' encoding guide.
"""

import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from vgen.video.io import UnreadableVideo

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def crc32c(content: bytes) -> int:
    """CRC-32C of a byte string (in Python: some 10 MB a second)."""
    crc, table = 0xFFFFFFFF, _TABLE
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked_crc32c(content: bytes) -> int:
    """The form in which TFRecord files store it: turned by 15 bits, plus a constant."""
    crc = crc32c(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record_offsets(path: Path) -> list[tuple[int, int]]:
    """Where the records of a file are: (offset, length) of every content. Only lengths are read, and checked.

    Raises:
        UnreadableVideo: Missing, empty, cut off, or no TFRecord file.
    """
    places: list[tuple[int, int]] = []
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            offset = 0
            while offset < size:
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    raise UnreadableVideo(path, f"cut off after {len(places)} records", "copy or download it again")
                length, crc = _HEADER.unpack(header)
                if crc != masked_crc32c(header[:8]):
                    raise UnreadableVideo(path, f"no TFRecord file, or damaged at byte {offset}")
                offset += _HEADER.size
                places.append((offset, length))
                offset += length + _FOOTER.size
                file.seek(offset)
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or str(error)) from error
    if offset > size:
        raise UnreadableVideo(path, f"cut off in record {len(places)}", "copy or download it again")
    if not places:
        raise UnreadableVideo(path, "the file is empty (0 bytes)", "copy or download it again")
    return places


def read_record(path: Path, offset: int, length: int, check: bool = False) -> bytes:
    """The content of one record.

    Args:
        path: The file.
        offset: From `record_offsets`.
        length: From `record_offsets`.
        check: Compare it with its checksum; this takes longer than reading it.

    Raises:
        UnreadableVideo: It cannot be read, or differs from its checksum.
    """
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content, footer = file.read(length), file.read(_FOOTER.size)
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or str(error)) from error
    if len(content) < length or len(footer) < _FOOTER.size:
        raise UnreadableVideo(path, f"the record at byte {offset} is cut off")
    if check and _FOOTER.unpack(footer)[0] != masked_crc32c(content):
        raise UnreadableVideo(path, f"the record at byte {offset} differs from its checksum")
    return content


def byte_features(example: bytes, names: Collection[str] | None = None) -> dict[str, bytes]:
    """The first byte string of the wanted features of an Example; None: of all that have one.

    Raises:
        ValueError: The message is no Example, or damaged.
    """
    found: dict[str, bytes] = {}
    for features in _fields(example, 1):
        for entry in _fields(features, 1):  # the map: key 1, value 2
            key = b"".join(_fields(entry, 1)).decode()
            if names is None or key in names:
                for value in _fields(entry, 2):
                    strings = [s for bytes_list in _fields(value, 1) for s in _fields(bytes_list, 1)]
                    if strings:
                        found[key] = bytes(strings[0])
    return found


def _fields(message: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """All fields of bytes with that number in a message."""
    view, at = memoryview(message), 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(view, at)
            continue
        if kind == _BYTES:
            length, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")
        if at + length > len(view):
            raise ValueError("the message is cut off")
        if kind == _BYTES and key >> 3 == number:
            yield view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("the message is cut off")


def _make_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE = _make_table()
