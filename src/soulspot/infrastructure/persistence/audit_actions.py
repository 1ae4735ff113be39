"""The actions of the audit log. Each begins with the type of its entity; docs/schema.md lists their `changes`."""

from typing import Final

ACTIONS: Final = frozenset(
    f"{kind}_{event}"
    for kind, events in {
        "track": ("added", "updated", "moved", "missing", "restored", "purged"),
        "file": ("failed", "retried", "ignored", "missing", "restored", "purged"),
        "artist": ("added", "updated", "removed", "ambiguous"),
        "album": ("added", "updated", "removed"),
        "folder": ("added", "updated", "online", "offline", "held", "mounted", "unmounted"),
        "scan": ("finished",),
        "audit": ("trimmed",),
    }.items()
    for event in events
)
