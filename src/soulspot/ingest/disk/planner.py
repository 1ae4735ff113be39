"""Compares what is on disk with what the catalogue knows, and plans what to do.

Pure: no disk, no database, no clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from soulspot.infrastructure.persistence.records import Known
from soulspot.ingest.disk.walker import FoundFile

TRANSIENT_FAILURES = frozenset(("unreadable",))
"""Failures of a disk or of permissions, not of the file: every scan reads it again, though it has not changed."""


@dataclass(frozen=True, slots=True)
class Work:
    """One file that differs from the catalogue.

    Attributes:
        file: what is on disk.
        known: what the catalogue has at this path, or what went missing there.
        moved_from: the file of the catalogue that this one may have been, by inode, size and mtime.

    """

    file: FoundFile
    known: Known | None = None
    moved_from: Known | None = None


@dataclass(slots=True)
class Plan:
    work: list[Work]
    gone: list[Known]
    unchanged: int


def compare(found: Mapping[str, FoundFile], known: Mapping[str, Known]) -> Plan:
    """Compare the files of one range of paths with what the catalogue knows of the same range."""
    work = [Work(file, known.get(path)) for path, file in found.items() if not _is_current(file, known.get(path))]
    gone = [before for path, before in known.items() if path not in found and not before.is_missing]
    return Plan(work, gone, len(found) - len(work))


def are_all_current(found: Mapping[str, FoundFile], known: Sequence[Sequence[Any]]) -> bool:
    """Whether the files of one range of paths have exactly the paths and signatures of the catalogue.

    Both are sorted by path. False does not mean changed: a file whose inode means nothing may be as it was.
    """
    return len(found) == len(known) and all(
        tuple(row) == (path, *file.signature) for (path, file), row in zip(found.items(), known, strict=True)
    )


def inodes_to_ask(work: Iterable[Work]) -> set[int]:
    """Return the inodes by which the catalogue may know new or replaced files at another path."""
    return {each.file.signature.inode for each in work if each.file.trusts_inode and _may_have_moved(each)}


def match_moves(work: Iterable[Work], elsewhere: Iterable[Known]) -> list[Work]:
    """Match each file that may have moved with a known file that it may have been; no known file matches twice."""
    by_inode: dict[int, list[Known]] = {}
    for known in elsewhere:
        by_inode.setdefault(known.signature.inode, []).append(known)
    matched = []
    for each in work:
        may_match = each.file.trusts_inode and _may_have_moved(each)
        candidates = by_inode.get(each.file.signature.inode, []) if may_match else []
        origin = next((known for known in candidates if _is_origin(each, known)), None)
        if origin is not None:
            candidates.remove(origin)
        matched.append(each if origin is None else replace(each, moved_from=origin))
    return matched


def _is_current(file: FoundFile, known: Known | None) -> bool:
    if known is None or known.is_missing or known.parser_version != file.root.reading:
        return False
    may_have_passed = known.status == "failed" and known.error_code in TRANSIENT_FAILURES
    return not may_have_passed and (file.signature == known.signature or file.is_as(known.signature))


def _may_have_moved(work: Work) -> bool:
    known = work.known
    return known is None or known.is_missing or known.signature.inode != work.file.signature.inode


def _is_origin(work: Work, known: Known) -> bool:
    is_elsewhere = (known.folder_id, known.path) != (work.file.root.id, work.file.path)
    return is_elsewhere and known.signature.same_content(work.file.signature)
