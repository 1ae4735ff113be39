"""Runs the library state machine for as long as a test may take; `tests/support/state_machine_loop.py` runs longer."""

import sys
import uuid

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from tests.support.postgres_server import Server
from tests.support.state_machine import LibraryStateMachine, ScanOnlyStateMachine, WatchOnlyStateMachine, run_settings

BOUNDED = run_settings(examples=15, steps=25)


def test_the_catalogue_matches_the_disk_whatever_happens() -> None:
    run_state_machine_as_test(LibraryStateMachine, settings=BOUNDED)


@pytest.mark.postgresql
def test_a_catalogue_in_postgresql_matches_the_disk(postgres_server: Server) -> None:
    class OnServer(LibraryStateMachine):
        name = ""

        def catalogue(self) -> str:
            self.name = f"test_{uuid.uuid4().hex}"
            postgres_server.clone(self.name)
            return postgres_server.socket_url(self.name)

        def teardown(self) -> None:
            super().teardown()
            postgres_server.run(f"DROP DATABASE {self.name} WITH (FORCE)")

    run_state_machine_as_test(OnServer, settings=settings(BOUNDED, max_examples=5))


def test_the_reconcile_alone_makes_the_catalogue_match_the_disk() -> None:
    run_state_machine_as_test(ScanOnlyStateMachine, settings=BOUNDED)


def test_the_share_of_songs_that_the_watcher_alone_misses_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    WatchOnlyStateMachine.done.clear()

    run_state_machine_as_test(WatchOnlyStateMachine, settings=settings(BOUNDED, max_examples=8))

    songs, missed = WatchOnlyStateMachine.done["songs"], WatchOnlyStateMachine.done["missed"]
    with capsys.disabled():
        sys.stdout.write(
            f"\nwithout the reconcile, the watcher missed {missed} of {songs} songs ({missed / max(songs, 1):.2%})\n"
        )
    assert songs > 0
