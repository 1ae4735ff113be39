"""Advice for each failure code."""

from typing import Final

ADVICE: Final = {
    "empty": "The file is empty: copy it again, or delete it.",
    "truncated": "The file is incomplete: copy or download it again.",
    "corrupt": "Try to play it. If it plays, rewrite its tags with a tag editor; if not, get it again.",
    "unsupported": "soulspot does not read this format: convert the file, or ignore it.",
    "too-large": "Reading it took more memory than allowed: raise tags.memory_limit and retry.",
    "timeout": "Reading it took too long: check the disk. Raise tags.time_limit and retry, or ignore it.",
    "crashed-parser": "Its tags crash the reader: rewrite them with a tag editor, or ignore it.",
    "unreadable": "Give soulspot's user permission to read it; soulspot then retries automatically.",
    "not-regular": "It is a link, a pipe or a device: replace it with a file, or ignore it.",
}
"""Advice to the user, by failure code."""
