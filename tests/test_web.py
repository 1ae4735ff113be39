"""The page over HTTP: what it shows of the catalogue, covers, and who may request a retry."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from mutagen.flac import FLAC
from tests.conftest import Soulspot, both, until, write_song
from tests.support.web_client import WebClient, picture, sequences, token_of, write_covered

from soulspot.infrastructure.tags.readers.cover_process import cover_of
from soulspot.infrastructure.tags.readers.covers import kind_of_picture


@both
def test_every_page_shows_the_content_of_the_catalogue(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "Album" / "1.mp3", title="First", artist="Somebody", album="Songs", tracknumber="1")
    write_song(soulspot.music / "Album" / "2.flac", title="Second", artist="Somebody", album="Songs", tracknumber="2")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    soulspot.scan()
    page = WebClient(soulspot)

    until(lambda: "3 files in the last 30 days" in page.ask("/").text)  # each request waits only a moment for the count
    stream, albums = page.ask("/").text, page.ask("/albums").text
    album, artist = (
        page.ask(page.first_link("/albums", "album")).text,
        page.ask(page.first_link("/artists", "artist")).text,
    )
    track = page.ask(page.first_link("/search?q=second", "track")).text
    failures, health = page.ask("/failures").text, page.ask("/health").text

    assert all(text in stream for text in ("First", "Second", "broken.mp3"))
    assert "Songs" in albums
    assert "Songs" in page.ask("/albums?by=title").text
    assert album.index("First") < album.index("Second")
    assert "First" in artist
    assert all(text in track for text in ("Second", "2.flac", "History", "added"))
    assert all(text in failures for text in ("broken.mp3", "corrupt", "Try to play it"))
    assert all(text in health for text in (str(soulspot.music), "degraded", "no soulspot is watching"))


@both
def test_the_stream_reaches_the_first_entry_without_a_gap(soulspot: Soulspot) -> None:
    for number in range(70):
        write_song(soulspot.music / f"{number}.mp3")
    soulspot.scan()
    page = WebClient(soulspot)

    seen, where = [], "/?kind=all"
    while where:
        html = page.ask(where).text
        seen += sequences(html)
        older = re.search(r'rel="next" href="([^"]+)"', html)
        where = older[1].replace("&amp;", "&") if older else ""

    numbers = [number for (number,) in soulspot.rows("SELECT sequence FROM audit_log ORDER BY sequence DESC")]
    assert seen == numbers


@both
def test_each_kind_has_its_own_stream(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "one.mp3", title="One")
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    soulspot.scan()
    song.rename(soulspot.music / "two.mp3")
    soulspot.scan()
    page = WebClient(soulspot)

    shown = {kind: len(sequences(page.ask(f"/?kind={kind}").text)) for kind in ("added", "moved", "failed", "missing")}

    assert shown == {"added": 1, "moved": 1, "failed": 1, "missing": 0}
    assert page.ask("/?kind=nonsense").status == 404


@both
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("björk", "Jóga"),
        ("BJÖRK homo", "Jóga"),
        ("folder%/a_b", "a_b"),
        ("nothing like it", "No results contain"),
        ("%", "a_b"),
    ],
)
def test_a_search_finds_by_artist_title_album_and_path(soulspot: Soulspot, words: str, found: str) -> None:
    write_song(soulspot.music / "folder%" / "a_b.mp3", title="Jóga", artist="Björk", album="Homogenic")
    write_song(soulspot.music / "other" / "axb.mp3", title="Other", artist="Nobody", album="Nothing")
    soulspot.scan()

    text = WebClient(soulspot).ask(f"/search?q={quote(words)}").text

    assert found in text
    assert "axb" not in text
    assert "Other" not in text


def test_a_track_shows_its_whole_history(soulspot: Soulspot) -> None:
    song = write_song(soulspot.music / "song.flac", title="Old name")
    soulspot.scan()
    tags = FLAC(song)
    tags["title"] = "New name"
    tags.save()
    song.rename(soulspot.music / "renamed.flac")
    soulspot.scan()
    page = WebClient(soulspot)

    text = page.ask(page.first_link("/search?q=new+name", "track")).text

    assert all(word in text for word in ("added", "moved", "Old name", "New name", "song.flac", "renamed.flac"))


@pytest.mark.parametrize("name", ["song.mp3", "song.flac"])
def test_a_cover_is_read_from_its_file(soulspot: Soulspot, name: str) -> None:
    write_covered(soulspot.music / "Album" / name, picture(), title="Song", album="Album")
    soulspot.scan()
    page = WebClient(soulspot)
    track, album = page.first_link("/search?q=song", "track"), page.first_link("/albums", "album")

    answer = page.ask(f"/cover{track}")

    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "image/png", picture())
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.ask(f"/cover{album}").body == picture()
    assert page.ask(f"/cover{track}", If_None_Match=answer.headers["etag"]).status == 304


def test_a_picture_in_the_folder_is_the_cover_of_its_songs(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "Album" / "song.mp3", title="Song")
    (soulspot.music / "Album" / "Folder.PNG").write_bytes(picture())
    soulspot.scan()
    page = WebClient(soulspot)

    assert page.ask(f"/cover{page.first_link('/', 'track')}").body == picture()


@pytest.mark.parametrize("cover", [b"<svg onload='alert(1)'>", b"<!doctype html><script>", b"", b"\x89PNG"])
def test_a_file_that_is_not_a_picture_is_never_shown_as_a_cover(soulspot: Soulspot, cover: bytes) -> None:
    write_covered(soulspot.music / "Album" / "song.mp3", cover, title="Song")
    (soulspot.music / "Album" / "cover.jpg").write_bytes(cover)
    (soulspot.music / "Album" / "folder.jpg").symlink_to("/etc/hostname")
    soulspot.scan()
    page = WebClient(soulspot)

    answer = page.ask(f"/cover{page.first_link('/', 'track')}")

    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.body == (Path(__file__).parents[1] / "src/soulspot/web/static/no-cover.svg").read_bytes()


def test_a_file_replaced_by_a_link_is_not_followed(soulspot: Soulspot, tmp_path: Path) -> None:
    song = write_song(soulspot.music / "song.mp3", title="Song")
    (tmp_path / "secret.png").write_bytes(picture())
    soulspot.scan()
    page = WebClient(soulspot)
    link = page.first_link("/", "track")
    song.unlink()
    song.symlink_to(tmp_path / "secret.png")

    assert page.ask(f"/cover{link}").headers["content-type"] == "image/svg+xml"


def test_a_hanging_cover_read_returns_no_cover(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp3")

    assert cover_of(str(tmp_path / "pipe.mp3")) == b""
    assert cover_of(str(tmp_path / "nothing.mp3")) == b""
    assert kind_of_picture(b"RIFF\0\0\0\0WEBPVP8 ") == "image/webp"
    assert kind_of_picture(b"GIF89a") == "image/gif"


def test_the_page_shows_the_catalogue_without_a_daemon(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3", title="Song")
    daemon = soulspot.watch()
    until(soulspot.tracks)
    page = WebClient(soulspot)
    with_daemon = page.ask("/").text

    daemon.terminate()
    daemon.wait()
    time.sleep(1.1)
    without = page.ask("/").text

    assert "watching" in with_daemon
    assert "no daemon" in without
    assert "Song" in without


def test_without_a_catalogue_no_page_is_served(new_soulspot: Soulspot) -> None:
    result = new_soulspot.run("web", "--listen", "127.0.0.1:0")

    assert result.returncode == 78
    assert "there is no catalogue" in result.stderr


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ("nowhere", "--listen nowhere is not an address"),
        ("127.0.0.1:99999", "is not an address"),
        ("0.0.0.0:0", "other machines reach"),
        ("/nowhere/socket", "cannot be served at /nowhere/socket (no such file"),
    ],
)
def test_an_invalid_address_is_refused(soulspot: Soulspot, listen: str, message: str) -> None:
    soulspot.scan()

    result = soulspot.run("web", "--listen", listen)

    assert (result.returncode, message in result.stderr) == (78, True), result.stderr


def test_a_port_in_use_is_named_in_the_error(soulspot: Soulspot) -> None:
    soulspot.scan()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = soulspot.run("web", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")

    assert result.returncode == 78
    assert "something listens there already" in result.stderr


def test_without_the_extra_the_command_names_the_package_to_install(soulspot: Soulspot) -> None:
    soulspot.scan()
    without = "import sys; sys.modules['starlette'] = None; from soulspot.__main__ import main; main()"

    result = subprocess.run(
        [sys.executable, "-c", without, "web"], env=soulspot.environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 78
    assert "pip install 'soulspot[web]'" in result.stderr


def test_the_page_can_listen_on_a_socket_that_its_group_may_use(soulspot: Soulspot) -> None:
    soulspot.scan()
    socket_file = soulspot.music.parent / "web.socket"
    page = WebClient(soulspot, "--listen", str(socket_file))

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(socket_file))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 200")
    assert stat.S_IMODE(socket_file.stat().st_mode) == 0o660
    assert page.where == str(socket_file)


def test_the_token_is_private_and_created_once(soulspot: Soulspot) -> None:
    soulspot.scan()
    first, second = token_of(soulspot), token_of(soulspot)
    file = Path(f"{soulspot.database}.web-token")

    assert first == second == file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert soulspot.run("web", "--new-token").stdout.splitlines()[0] != first


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/failures/retry", "code=corrupt"),
        ("/failures/retry", "code=corrupt&csrf_token=0"),
        ("/logout", ""),
        ("/", "x=1"),
    ],
)
def test_requests_without_the_token_change_nothing(soulspot: Soulspot, path: str, body: str) -> None:
    soulspot.scan()
    page = WebClient(soulspot)
    own = f"http://127.0.0.1:{page.port}"

    assert page.ask(path, "POST", body).status in {403, 405}
    assert page.ask(path, "POST", body, Origin=own, Cookie="soulspot=99999999999.0000").status in {403, 405}
    assert page.ask("/login", "POST", "token=guess").status == 403


def test_a_form_needs_the_csrf_token_of_its_own_session(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot)
    token = token_of(soulspot)
    (cookie, csrf_token), (_other, foreign) = page.log_in(token), ("", "0" * 64)

    assert page.ask("/logout", "POST", f"csrf_token={foreign}", Cookie=cookie).status == 403
    assert page.ask("/logout", "POST", f"csrf_token={csrf_token}", Cookie=cookie).status == 303
    soulspot.run("web", "--new-token")
    assert page.ask("/logout", "POST", f"csrf_token={csrf_token}", Cookie=cookie).status == 403


def test_scripts_and_other_sites_cannot_get_the_cookie(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot)

    cookie = page.ask("/login", "POST", f"token={token_of(soulspot)}").headers["set-cookie"].lower()

    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_an_impossible_retry_is_refused_with_a_clear_reason(soulspot: Soulspot) -> None:
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    soulspot.scan()
    page = WebClient(soulspot)
    cookie, csrf_token = page.log_in(token_of(soulspot))

    answer = page.ask("/failures/retry", "POST", f"csrf_token={csrf_token}&code=corrupt", Cookie=cookie)

    assert answer.status == 200
    assert "Not possible: no soulspot is watching" in answer.text
    assert "Retry it" in page.ask("/failures", Cookie=cookie).text
    assert "Retry it" not in page.ask("/failures").text


def test_an_idle_page_exits(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot, "--listen", "127.0.0.1:0", "--idle", "1")

    with page.events():
        time.sleep(2.5)
        assert page.process.poll() is None

    assert page.process.wait(timeout=10) == 0


def test_the_page_accepts_a_socket_from_systemd_or_inetd(soulspot: Soulspot) -> None:
    soulspot.scan()
    command = [*soulspot.command, "web", "--idle", "1"]
    for attempt in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
            client.connect(listening.getsockname())
            process = subprocess.Popen(
                command, env=soulspot.environment, stdin=listening.fileno(), stderr=subprocess.DEVNULL
            )
            soulspot.running.append(process)
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n", attempt
            assert process.wait(timeout=15) == 0


def test_the_page_exits_when_the_catalogue_is_replaced(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot)
    copy = soulspot.database.with_name("copy.db")
    copy.write_bytes(soulspot.database.read_bytes())

    copy.rename(soulspot.database)

    page.process.wait(timeout=10)
    assert "was replaced by another file" in page.log.read_text()


def test_the_page_stops_at_once_despite_open_connections(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot)

    with page.events():
        began = time.monotonic()
        assert page.stop() == 0

    assert time.monotonic() - began < 20  # a graceful stop would wait for the pages forever


def test_the_page_reports_the_same_as_the_status_command(soulspot: Soulspot) -> None:
    write_song(soulspot.music / "song.mp3")
    soulspot.watch()
    until(soulspot.tracks)

    report = json.loads(soulspot.run("status", "--json").stdout)
    text = WebClient(soulspot).ask("/health").text

    assert report["health"] == "ok"
    assert all(str(each) in text for each in (report["database"], report["folders"][0]["path"], "inotify"))
