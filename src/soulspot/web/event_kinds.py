"""Groups audit actions into the kinds that the page shows, and names them for display."""

from collections.abc import Mapping
from typing import Final

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "added": ("track_added",),
    "updated": ("track_updated",),
    "moved": ("track_moved",),
    "missing": ("track_missing", "file_missing"),
    "back": ("track_restored", "file_restored"),
    "failed": ("file_failed",),
}
"""The audit actions of each kind that the page can filter by."""
FILES: Final = tuple(action for actions in KINDS.values() for action in actions)
"""The actions on files, which the stream shows by default."""
_KIND: Final = {action: kind for kind, actions in KINDS.items() for action in actions}
_WORDS: Final = {
    "track_purged": "purged", "file_purged": "purged", "file_ignored": "ignored", "file_retried": "queued for retry",
    "folder_offline": "offline", "folder_online": "online", "folder_held": "held", "scan_finished": "scan finished",
}  # fmt: skip


def kind_of(action: str) -> str:
    """Return the kind of an action, "other" if it is not about a file."""
    return _KIND.get(action, "other")


def word_for(action: str) -> str:
    return _KIND.get(action) or _WORDS.get(action) or action.replace("_", " ")
