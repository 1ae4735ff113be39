"""The names, values and stream that a parser finds in one part of a file."""

from dataclasses import dataclass, field
from typing import Any

from soulspot.infrastructure.tags.fields import Names
from soulspot.infrastructure.tags.model import Picture


@dataclass(slots=True)
class Parsed:
    """Names are folded by `fields.tag_key`; `stream` holds fields of `TrackTags`."""

    names: Names = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    stream: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fingerprint: str | None = None  # if the parser reads the audio anyway

    def add(self, name: str, values: list[str]) -> None:
        if (known := self.names.get(name)) is None:
            self.names[name] = values
        else:
            known.extend(values)

    def fill_from(self, other: "Parsed") -> None:
        """Add what this part lacks."""
        self.names |= other.names | self.names  # keeps its own values, and their order
        self.pictures = self.pictures or other.pictures
        self.stream |= other.stream | self.stream
        self.notes += other.notes


class NeedsMutagenError(Exception):
    """A native parser does not handle this file or tag: mutagen reads it instead."""
