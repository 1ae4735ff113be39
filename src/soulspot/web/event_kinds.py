"""The kinds of things that happen, in the words of the page."""

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
"""The actions of the audit log that are each of the kinds a person asks for."""
FILES: Final = tuple(action for actions in KINDS.values() for action in actions)
"""The actions that are of files: what the stream shows, unless all is asked for."""
_KIND: Final = {action: kind for kind, actions in KINDS.items() for action in actions}
_WORDS: Final = {
    "track_purged": "purged", "file_purged": "purged", "file_ignored": "ignored", "file_retried": "to be retried",
    "folder_offline": "offline", "folder_online": "online", "folder_held": "held", "scan_finished": "scan finished",
}  # fmt: skip


def kind_of(action: str) -> str:
    """Return the kind of an action, "other" for what is of no file."""
    return _KIND.get(action, "other")


def word_for(action: str) -> str:
    return _KIND.get(action) or _WORDS.get(action) or action.replace("_", " ")
