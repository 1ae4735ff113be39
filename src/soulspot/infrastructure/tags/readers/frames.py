"""The pipes of the reader processes: frames of a four-byte length and a body.

Tag readers exchange lists in msgpack. Never pickle: a process that parses foreign bytes must not be able to run code in
the daemon.
"""

import resource
import signal
import struct
import sys
from collections.abc import Iterator, Sequence

import msgspec

from soulspot.infrastructure.tags.model import Reading

LENGTH = struct.Struct("<I")
"""The header of each frame."""

_encode = msgspec.msgpack.encode
decode_paths = msgspec.msgpack.Decoder(list[bytes]).decode
decode_readings = msgspec.msgpack.Decoder(list[Reading]).decode


def frame(content: Sequence[bytes] | Sequence[Reading]) -> bytes:
    body = _encode(content)
    return LENGTH.pack(len(body)) + body


def requests(memory_limit: int) -> Iterator[bytes]:
    """Limit the memory of this process, in bytes, and yield each request from its standard input until that closes."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent process ends this one by closing its input
    while len(head := sys.stdin.buffer.read(LENGTH.size)) == LENGTH.size:
        yield sys.stdin.buffer.read(LENGTH.unpack(head)[0])
