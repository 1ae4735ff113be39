"""What goes over a tag reader's pipes: frames of four bytes of length and msgpack, lists in both directions.

Never pickle: what a parser of foreign bytes answers must not be able to run anything.
"""

import struct
from collections.abc import Sequence

import msgspec

from soulspot.infrastructure.tags.model import Reading

LENGTH = struct.Struct("<I")
"""The head of each frame."""

_encode = msgspec.msgpack.encode
decode_paths = msgspec.msgpack.Decoder(list[bytes]).decode
decode_readings = msgspec.msgpack.Decoder(list[Reading]).decode


def frame(content: Sequence[bytes] | Sequence[Reading]) -> bytes:
    body = _encode(content)
    return LENGTH.pack(len(body)) + body
