"""What the history tells of. An action names the kind of thing first; docs/schema.md has what its `changes` hold."""

from typing import Final

ACTIONS: Final = frozenset(
    f"{kind}_{what}"
    for kind, happened in {
        "track": ("added", "updated", "moved", "missing", "restored", "purged"),
        "file": ("failed", "retried", "ignored", "missing", "restored", "purged"),
        "artist": ("added", "updated", "removed", "ambiguous"),
        "album": ("added", "updated", "removed"),
        "folder": ("added", "updated", "online", "offline", "held", "mounted", "unmounted"),
        "scan": ("finished",),
        "audit": ("trimmed",),
    }.items()
    for what in happened
)
