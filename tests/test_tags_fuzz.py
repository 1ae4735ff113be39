"""A bounded run of the fuzzing command; `python -m tests.support.fuzz_tags` runs for as long as you like."""

from pathlib import Path

import pytest
from tests.support.fuzz_tags import bombs, run

from soulspot.infrastructure.tags.reader import read_file


def test_every_damaged_file_yields_tags_or_a_failure_with_a_code() -> None:
    ended, wrong = run(2500, seed=4, workers_share=0.2)

    assert wrong == []
    assert ended["tags"] > 1000
    assert ended["corrupt"] > 300


@pytest.mark.parametrize("name", ["many-frames.mp3", "many-frames-2.3.mp3", "many-comments.flac", "chunks.wav"])
def test_a_tag_with_very_many_parts_takes_less_than_quadratic_time(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(bombs()[name])

    reading = read_file(str(path))  # pytest's time limit would fail it

    assert reading.tags or reading.failure


def test_a_parser_in_an_endless_loop_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "circle.mpc"
    # A Musepack packet whose size of zero leads back to its own beginning.
    path.write_bytes(b"MPCK" + b"XX\0" * 3)

    reading = read_file(str(path))

    assert reading.failure is not None
    assert reading.failure.message == "the parser never stops reading"
