"""Decides which artist a credit names: by MusicBrainz id first, else by name.

    id known                      that artist
    id new, name-only namesake    the namesake gets the id
    id new                        a new artist, even if others have the name
    name only, one namesake       that one
    name only, several with ids   the one that the album credits already, else an artist of that name without an id

An artist keeps the name of its first credit for as long as any credit has it.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soulspot.infrastructure.persistence.identity import NAME_LENGTH, normalize_name
from soulspot.infrastructure.persistence.records import Credited
from soulspot.infrastructure.persistence.repositories import ArtistRepository, AuditRepository
from soulspot.ingest.catalogue.credits import Credit

_INSTRUMENT_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class CreditContext:
    """The file and album that names were read from, and the credits of its track so far."""

    path: str
    album_key: str | None
    before: Sequence[Credited] = ()


class Artists:
    """Finds and creates artists, inside the caller's transaction.

    Args:
        reserve: keeps other transactions from adding artists of these names; false if none can be in progress.

    Attributes:
        ids: the artists found or created, by MusicBrainz id or normalized name: an album's second track queries none.

    """

    def __init__(
        self, artists: ArtistRepository, audit: AuditRepository, reserve: Callable[[Iterable[str]], Awaitable[bool]]
    ) -> None:
        self._artists = artists
        self._audit = audit
        self._reserve = reserve
        self.ids: dict[str, str] = {}
        self._sorted: set[str] = set()  # ids of artists with a sort name

    def forget(self) -> None:
        """Forget the cached artists: a rollback, a change or a removal has made them stale."""
        self.ids.clear()
        self._sorted.clear()

    async def credited(self, credits: Iterable[Credit], context: CreditContext) -> list[Credited]:
        """Return the credits with their artists, creating new ones; no artist twice in one role.

        Queries for all of them before it adds the first: consecutive inserts cost PostgreSQL one round trip.
        """
        keyed = [(credit, credit.key) for credit in credits]
        known = await self._find_all(dict(enumerate(keyed)), context)
        absent = {number: each for number, each in enumerate(keyed) if known[number] is None}
        if absent and await self._reserve(normalize_name(credit.name) for credit, _key in absent.values()):
            # Another watcher may have added one meanwhile, and with the id where this file has only the name, or the
            # other way round.
            known |= await self._find_all(absent, context)
        added: dict[str, str] = {}
        found: dict[tuple[str, str, str | None], Credited] = {}
        for number, (credit, key) in enumerate(keyed):
            artist_id = known[number] or added.get(key)
            if artist_id is None:
                artist_id = added[key] = self.ids[key] = await self._add(credit, context.path)
            if credit.sort_name is not None and artist_id not in self._sorted:
                await self.set_sort_name(artist_id, credit.sort_name, context.path)
            instrument = credit.instrument[:_INSTRUMENT_LENGTH] if credit.instrument else None
            credited = Credited(credit.role, artist_id, credit.name[:NAME_LENGTH], instrument)
            found.setdefault((credit.role, artist_id, instrument), credited)
        return list(found.values())

    async def set_sort_name(self, artist_id: str, sort_name: str, path: str, *, replace: bool = False) -> None:
        """Give an artist a sort name, if it has none or `replace` is set."""
        row = await self._artists.get_by_id(artist_id)
        self._sorted.add(artist_id)
        sort_name = sort_name[:NAME_LENGTH]
        if row is not None and row.sort_name != sort_name and (replace or row.sort_name is None):
            await self._artists.set(artist_id, sort_name=sort_name)
            await self._log_update(artist_id, path, {"sort_name": [row.sort_name, sort_name]})

    async def respell(self, artist_ids: Collection[str], path: str) -> None:
        """Rename the artists whose name no credit has any more to the name that most of their credits have."""
        for artist, name in await self._artists.respelt(artist_ids):
            await self._artists.set(artist.id, name=name, name_key=normalize_name(name)[:NAME_LENGTH])
            await self._log_update(artist.id, path, {"name": [artist.name, name]})
            self.forget()

    async def remove_uncredited(self, artist_ids: Collection[str]) -> None:
        """Remove those of these artists that no track and no album credits any more."""
        for artist in await self._artists.uncredited(artist_ids):
            await self._artists.remove(artist.id)
            self.forget()
            await self._audit.log_action(
                "artist_removed", artist.id, changes={"name": artist.name, "musicbrainz_id": artist.musicbrainz_id}
            )

    async def _find_all(self, keyed: Mapping[int, tuple[Credit, str]], context: CreditContext) -> dict[int, str | None]:
        """Return the artists that exist; queries in key order, as an adopted artist stays locked until the commit."""
        found: dict[int, str | None] = {}
        unknown = set[str]()  # queried once, in however many roles
        for number, (credit, key) in sorted(keyed.items(), key=lambda item: item[1][1]):
            found[number] = self.ids.get(key) or (None if key in unknown else await self._find(credit, key, context))
            if found[number] is None:
                unknown.add(key)
        return found

    async def _find(self, credit: Credit, key: str, context: CreditContext) -> str | None:
        namesakes = await self._artists.with_name(credit.name)
        unidentified = next((artist_id for artist_id, identity in namesakes if identity is None), None)
        identified = [artist_id for artist_id, identity in namesakes if identity is not None]
        if credit.musicbrainz_id is not None:
            found = await self._by_id(credit.musicbrainz_id, None if identified else unidentified, context.path)
            self.ids.pop(normalize_name(credit.name), None)  # the name alone may be ambiguous now
        elif len(identified) > 1:
            return await self._choose(credit, identified, unidentified, context)
        else:
            found = unidentified or next(iter(identified), None)
        if found is not None:
            self.ids[key] = found
        return found

    async def _by_id(self, musicbrainz_id: str, namesake: str | None, path: str) -> str | None:
        if (found := await self._artists.with_musicbrainz_id(musicbrainz_id)) is not None or namesake is None:
            return found
        if not await self._artists.identify(namesake, musicbrainz_id):
            return await self._artists.with_musicbrainz_id(musicbrainz_id)  # another writer was faster
        await self._log_update(namesake, path, {"musicbrainz_id": [None, musicbrainz_id]})
        return namesake

    async def _choose(
        self, credit: Credit, identified: list[str], unidentified: str | None, context: CreditContext
    ) -> str:
        """Decide which artist a name means that several with ids have, and log the decision.

        If the track has credited one of them before, that one stays, and nothing is logged.
        """
        same_credit = credit.role, normalize_name(credit.name)
        for each in context.before:
            if (each.role, normalize_name(each.name)) == same_credit and each.artist_id in {*identified, unidentified}:
                return each.artist_id
        on_album = await self._artists.on_album(context.album_key, identified) if context.album_key else []
        if len(on_album) == 1:
            chosen, by = on_album[0], "album"
        else:
            chosen, by = unidentified or await self._add(credit, context.path), "name"
        await self._audit.log_action(
            "artist_ambiguous",
            chosen,
            path=context.path,
            changes={"name": credit.name, "candidates": identified, "chosen_by": by},
        )
        return chosen

    async def _add(self, credit: Credit, path: str) -> str:
        artist_id = await self._artists.add(
            credit.name, musicbrainz_id=credit.musicbrainz_id, sort_name=credit.sort_name
        )
        await self._audit.log_action(
            "artist_added",
            artist_id,
            path=path,
            changes={"name": credit.name, "musicbrainz_id": credit.musicbrainz_id},
        )
        if credit.sort_name is not None:
            self._sorted.add(artist_id)
        return artist_id

    async def _log_update(self, artist_id: str, path: str, changes: dict[str, Any]) -> None:
        await self._audit.log_action("artist_updated", artist_id, path=path, changes=changes)
