"""The name by which a catalogue knows this machine."""

import socket
from collections.abc import Iterable

from soulspot.infrastructure.persistence.records import KnownFolder


def own_node(folders: Iterable[KnownFolder], wanted: str, *, is_shared: bool) -> str:
    """Return the name that was `wanted`, else the host's.

    A catalogue that is not shared (an SQLite file) is of one machine, whatever that was called when it began: one that
    is renamed, or a container that gets another name at each start, would else find none of its folders, and take
    everything in a second time.
    """
    name = wanted or socket.gethostname()
    known = {folder.node for folder in folders}
    if wanted or is_shared or name in known or len(known) != 1:
        return name
    return known.pop()
