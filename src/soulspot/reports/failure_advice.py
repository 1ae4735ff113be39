"""What to do about each failure code."""

from typing import Final

ADVICE: Final = {
    "empty": "It has no content: was it copied to the end? Copy it again, or delete it.",
    "truncated": "It ends before its end: copy or download it again.",
    "corrupt": "Try to play it. If it plays, write its tags anew with a tag editor; if not, get it again.",
    "unsupported": "It is in no format that soulspot reads: convert it, or ignore it.",
    "too-large": "Reading it took more memory than is allowed: raise tags.memory_limit and retry.",
    "timeout": "Reading it took too long: is the disk well? Raise tags.time_limit and retry, or ignore it.",
    "crashed-parser": "Its tags take the reader down: write them anew with a tag editor, or ignore it.",
    "unreadable": "Give the user that soulspot runs as the right to read it; it is then tried again by itself.",
    "not-regular": "It is a link, a pipe or a device: put a file in its place, or ignore it.",
}
"""What a person can do, by the code of a failure."""
