"""Compares what is on disk with what the catalogue knows, and says what there is to do.

Pure: no disk, no database, no clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soulspot.infrastructure.persistence.records import Known
from soulspot.ingest.disk.walker import FoundFile

MAY_PASS = frozenset(("unreadable",))
"""Failures of a disk or of rights, and not of the file: it is read again at each look, though it has not changed."""


@dataclass(frozen=True, slots=True)
class Work:
    """One file that the catalogue does not have as it is.

    Attributes:
        file: what is on disk.
        known: what the catalogue has at this path, or what went missing there.
        moved_from: a file of the catalogue that this one may be, found by its inode, size and mtime.

    """

    file: FoundFile
    known: Known | None = None
    moved_from: Known | None = None


@dataclass(slots=True)
class Comparison:
    work: list[Work] = field(default_factory=list)
    gone: list[Known] = field(default_factory=list)
    unchanged: int = 0


def compare(found: Mapping[str, FoundFile], known: Mapping[str, Known]) -> Comparison:
    """Compare the files of one range of paths with what is known of the same range."""
    result = Comparison()
    for path, file in found.items():
        before = known.get(path)
        if before is not None and not before.is_missing and _is_current(file, before):
            result.unchanged += 1
        else:
            result.work.append(Work(file, before))
    result.gone = [before for path, before in known.items() if path not in found and not before.is_missing]
    return result


def are_all_current(found: Mapping[str, FoundFile], known: Sequence[Sequence[Any]]) -> bool:
    """Whether the files of one range of paths are those of the catalogue, path and signature for path and signature.

    Both are in the order of the paths. A file whose inode says nothing may be as it was all the same.
    """
    return len(found) == len(known) and all(
        tuple(row) == (path, *file.signature) for (path, file), row in zip(found.items(), known, strict=True)
    )


def inodes_to_ask(work: Iterable[Work]) -> set[int]:
    """Return the inodes by which a file that looks new, or another than the one before, may be known elsewhere."""
    return {each.file.signature.inode for each in work if each.file.trusts_inode and _may_have_moved(each)}


def match_moves(work: Iterable[Work], elsewhere: Iterable[Known]) -> list[Work]:
    """Give each file that may have come from another path the one it may have been; each of those at most once."""
    by_inode: dict[int, list[Known]] = {}
    for known in elsewhere:
        by_inode.setdefault(known.signature.inode, []).append(known)
    matched = []
    for each in work:
        origin = None
        if each.file.trusts_inode and _may_have_moved(each):
            candidates = by_inode.get(each.file.signature.inode, [])
            origin = next((known for known in candidates if _is_origin(each, known)), None)
        if origin is not None:
            candidates.remove(origin)
            each = Work(each.file, each.known, origin)  # noqa: PLW2901 - the same work, with its origin known
        matched.append(each)
    return matched


def _is_current(file: FoundFile, known: Known) -> bool:
    before = known.signature
    if known.status == "failed" and known.error_code in MAY_PASS:
        return False
    return known.parser_version == file.root.reading and (file.signature == before or file.is_as(before))


def _may_have_moved(work: Work) -> bool:
    known = work.known
    return known is None or known.is_missing or known.signature.inode != work.file.signature.inode


def _is_origin(work: Work, known: Known) -> bool:
    file = work.file
    elsewhere = (known.folder_id, known.path) != (file.root.id, file.path)
    return elsewhere and known.signature.same_content(file.signature)
