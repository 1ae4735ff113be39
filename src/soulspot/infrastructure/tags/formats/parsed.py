"""What one part of a file says, in names and texts; parts are put together, the first of them counts."""

from dataclasses import dataclass, field
from typing import Any

from soulspot.infrastructure.tags.fields import Names
from soulspot.infrastructure.tags.model import Picture


@dataclass(slots=True)
class Parsed:
    """Names as `fields.folded` makes them, pictures without their bytes, and the fields of the stream."""

    names: Names = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    stream: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fingerprint: str | None = None  # of the audio, where the way to the tags leads by it

    def add(self, name: str, values: list[str]) -> None:
        known = self.names.get(name)
        if known is None:
            self.names[name] = values
        else:
            known.extend(values)

    def fill_from(self, other: "Parsed") -> None:
        """Take what this lacks."""
        for name, values in other.names.items():
            self.names.setdefault(name, values)
        self.pictures = self.pictures or other.pictures
        for name, value in other.stream.items():
            self.stream.setdefault(name, value)
        self.notes += other.notes


class DoubtError(Exception):
    """A quick reader met what it does not know; mutagen reads it instead."""
