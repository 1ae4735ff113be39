"""Where a scan looks: at all of each music folder, or at what was named in them."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soulspot.config import Settings
from soulspot.infrastructure.filesystem import text_to_path
from soulspot.infrastructure.persistence.models import MOUNT_STATES
from soulspot.infrastructure.persistence.records import KnownFolder
from soulspot.ingest.scanner import Root


@dataclass(frozen=True, slots=True)
class Where:
    """What a scan is to look at: the settings with its folders, and the parts of those of which not all is meant."""

    settings: Settings
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, root: Root) -> Sequence[str]:
        return self.parts.get(root.path, ("",))


def located(settings: Settings, known: Iterable[KnownFolder], named: Sequence[Path]) -> Where:
    """Return where to look: at the music folders, or at what is named in one of them or in one that is known.

    What is named and lies in none of them is a music folder of its own.
    """
    if not named:
        return Where(settings)
    parts = defaultdict[str, list[str]](list)
    watched = [text_to_path(folder.path) for folder in known if folder.status not in MOUNT_STATES]
    folders = [*map(str, settings.library.folders), *watched]
    for path in map(str, named):
        inside = [
            (folder, below)
            for folder in folders
            if (below := Root("", folder).relative(os.path.abspath(path))) is not None
        ]
        folder, below = inside[0] if inside else (os.path.abspath(path), "")
        parts[folder].append(f"{below}/" if below and os.path.isdir(path) else below)
    return Where(settings.with_folders([Path(folder) for folder in parts]), parts)
