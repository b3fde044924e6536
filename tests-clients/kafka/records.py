"""Record batches as bytes, sound or broken in one chosen way.

In: keys, values, headers and what the header of the batch shall claim. Out: bytes for a Produce request.
And back: the records of the batches that a Fetch answers with.
Never: uses a client library, whose encoders would not write what is wrong.

    batch   base offset i64 | length i32 | leader epoch i32 | magic i8 | crc32c u32 | attributes i16 |
            last offset delta i32 | base timestamp i64 | max timestamp i64 | producer id i64 | producer epoch i16 |
            base sequence i32 | count i32 | records
    record  length | attributes i8 | timestamp delta | offset delta | key | value | headers    (lengths: zigzag varints)
"""

import gzip
import struct
import time
import zlib

import cramjam
import lz4.frame
import zstandard

HEADER = struct.Struct(">qiibIhiqqqhii")
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _table()


def crc32c(data):
    """Castagnoli's checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def varint(number):
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number & ~0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def sized(data):
    return varint(-1) if data is None else varint(len(data)) + data


def record(delta, value, key=None, headers=(), timestamp_delta=0):
    """One record with its length."""
    body = b"\0" + varint(timestamp_delta) + varint(delta) + sized(key) + sized(value) + varint(len(headers))
    for name, content in headers:
        body += sized(name.encode()) + sized(content)
    return varint(len(body)) + body


def xerial(data):
    """Snappy in the frame that Java's library writes."""
    block = bytes(cramjam.snappy.compress_raw(data))
    return b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(block)) + block


COMPRESS = {
    "none": bytes,
    "gzip": gzip.compress,
    "snappy": xerial,
    "lz4": lz4.frame.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


def sealed(attributes, deltas, timestamps, producer, count, records, magic=2, crc=None, base_offset=0, length=None):
    """A batch of what is said, with the checksum that fits unless one is given."""
    rest = struct.pack(">hiqqqhii", attributes, deltas, *timestamps, *producer, count) + records
    crc = crc32c(rest) if crc is None else crc
    length = 9 + len(rest) if length is None else length
    return struct.pack(">qiibI", base_offset, length, 0, magic, crc) + rest


def batch(values, codec="none", producer=(-1, -1, -1), timestamp=None, keys=None, headers=(), **claims):
    """A sound batch of these values; `claims` overrides what its header says."""
    keys = keys or [None] * len(values)
    now = int(time.time() * 1000) if timestamp is None else timestamp
    records = b"".join(record(at, value, key, headers) for at, (value, key) in enumerate(zip(values, keys, strict=True)))
    given = {
        "attributes": CODECS[codec],
        "deltas": len(values) - 1,
        "timestamps": (now, now),
        "producer": producer,
        "count": len(values),
        "records": COMPRESS[codec](records),
    }
    return sealed(**{**given, **claims})


def old_message(value, magic):
    """A message set of one message of the formats before batches."""
    body = bytes([magic, 0]) + (struct.pack(">q", int(time.time() * 1000)) if magic else b"")
    body += struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message


def batches(data):
    """The whole batches in what a Fetch answered: [(base offset, attributes, producer, count, records)]."""
    found, at = [], 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">i", data, at + 8)
        if at + 12 + length > len(data):
            break
        base, _, _, magic, crc, attributes, _, _, _, pid, epoch, sequence, count = HEADER.unpack_from(data, at)
        assert magic == 2
        assert crc == crc32c(data[at + 21 : at + 12 + length]), "the checksum of a fetched batch"
        found.append((base, attributes, (pid, epoch, sequence), count, data[at + HEADER.size : at + 12 + length]))
        at += 12 + length
    return found


def values(data):
    """Offsets and values in what a Fetch answered, of batches that are not compressed."""
    found = []
    for base, attributes, _, count, records in batches(data):
        assert attributes & 7 == 0
        at = 0
        for _ in range(count):
            length, at = _varint(records, at)
            end, inner = at + length, at + 1
            _, inner = _varint(records, inner)
            delta, inner = _varint(records, inner)
            key, inner = _varint(records, inner)
            inner += max(key, 0)
            size, inner = _varint(records, inner)
            found.append((base + delta, None if size < 0 else records[inner : inner + size]))
            at = end
    return found


def _varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 128:
            return (number >> 1) ^ -(number & 1), at
