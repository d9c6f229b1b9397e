"""A line of JSON and the CRC-32 that checks it: for objects that hold one thing each."""

from __future__ import annotations

import zlib

import msgspec


class _Seal(msgspec.Struct):
    crc32: int


def seal_line(line: bytes) -> bytes:
    r"""Return a line with its seal.

    >>> seal_line(b"{}")
    b'{}\n{"crc32":2745614147}\n'
    """
    return line + b"\n" + msgspec.json.encode(_Seal(zlib.crc32(line))) + b"\n"


def unseal_line(data: bytes) -> bytes:
    """Return the sealed line.

    Raises:
        ValueError: The bytes are not those that were sealed.
    """
    line, _, seal = data.partition(b"\n")
    if seal != msgspec.json.encode(_Seal(zlib.crc32(line))) + b"\n":
        raise ValueError("the CRC-32 is another one")
    return line
