"""The process that runs mutagen: reads paths from its input, writes a `Reading` of each to its output, one by one.

It starts light and knows no database. Each message is its length in four bytes and msgpack; never pickle, as what a
parser of foreign bytes answers must not be able to run anything.
"""

import os
import resource
import signal
import struct
import sys

import msgspec

from soulspot.infrastructure.filesystem import ignore_lease_signals
from soulspot.infrastructure.tags.reader import read_file

LENGTH = struct.Struct("<I")


def main() -> None:
    memory_limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever started this process ends it, by closing its input
    ignore_lease_signals()
    source, target, encode = sys.stdin.buffer, sys.stdout.buffer, msgspec.msgpack.encode
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        path = os.fsdecode(source.read(LENGTH.unpack(head)[0]))
        answer = encode(read_file(path))
        target.write(LENGTH.pack(len(answer)) + answer)
        target.flush()


if __name__ == "__main__":
    main()
