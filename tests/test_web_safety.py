"""The page against hostile files, hostile sites and hostile clients."""

import html
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mutagen.id3 import ID3, TIT2, TPE1, USLT
from tests.conftest import AUDIO, Soulspot, write_song
from tests.support.web_client import WebClient, token_of

from soulspot.web.texts import shown, visible

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'{{7*7}}{% include '/etc/passwd' %}",
    "</title></bdi></style><base href=//evil.example>",
    '<a href="javascript:alert(1)">x</a>',
    "&lt;b&gt; &#x3c;script&#x3e;",
    "a\u202egpm.exe\u2066\u200f\u061c",
    "\u0000\u0007\u001b[31mred\u007f\u0085\u2028\u2029",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "x" * 100_000,
]
PAGES = ["/", "/?kind=all", "/albums", "/albums?by=title", "/artists", "/failures", "/health"]
_ALLOWED = re.compile(r"[\n\t\x20-\x7e\xa0-\U0010ffff]*")


@pytest.fixture
def hostile(soulspot: Soulspot) -> WebClient:
    for number, text in enumerate(HOSTILE):
        song = soulspot.music / f"{number}.mp3"
        shutil.copyfile(AUDIO / "tone.mp3", song)
        tags = ID3()
        tags.add(TIT2(encoding=3, text=text))
        tags.add(TPE1(encoding=3, text=text))
        tags.add(USLT(encoding=3, lang="eng", text=text * 3))
        tags.save(song)
        name = text.replace("\0", "").replace("/", "_")[:60]
        shutil.copyfile(song, soulspot.music / f"{name}.mp3")
        (soulspot.music / f"{name} broken.mp3").write_bytes(b"no audio at all" * 100)
    named = os.fsencode(soulspot.music) + b"/caf\xe9 <i>\xff\x80.mp3"
    Path(os.fsdecode(named)).write_bytes((AUDIO / "tone.mp3").read_bytes())
    soulspot.scan()
    return WebClient(soulspot)


class Tags(HTMLParser):
    """The elements of an HTML page with their attributes, as a browser parses them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def check(text: str) -> None:
    """Fail if HTML comes from anything but our templates, or a character controls how the rest is displayed."""
    tags = Tags(text).found
    assert [given for name, given in tags if name == "script"] == [{"src": "/static/live.js", "defer": ""}]
    assert not {name for name, _given in tags} & {"base", "iframe", "object", "embed", "style", "i"}
    for _name, given in tags:
        assert not [each for each in given if each.startswith("on") or each == "style"], given
        for each in ("href", "src", "action"):
            assert given.get(each, "/").startswith(("/", "#")), given
            assert not given.get(each, "/").startswith("//"), given
    assert "49" not in re.findall(r"'-alert\(1\)-'(\d*)", html.unescape(text))
    assert _ALLOWED.fullmatch(text) is not None
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\u2028\u2029]", text)


def test_hostile_tags_and_names_are_shown_as_text_on_every_page(hostile: WebClient) -> None:
    found = set(PAGES)
    for page in PAGES:
        text = hostile.ask(page).text
        check(text)
        assert len(text) < 300_000
        found |= set(re.findall(r'href="(/(?:track|album|artist)/[^"]+)"', text))
    for page in sorted(found):
        check(hostile.ask(html.unescape(page)).text)
    assert len(found) > 40

    for text in HOSTILE[:8]:
        check(hostile.ask(f"/search?q={''.join(f'%{each:02x}' for each in text.encode())}").text)


def test_a_long_text_is_cut_and_shown_whole_on_its_own_page(hostile: WebClient) -> None:
    track = hostile.first_link("/search?q=xxxxxxxxxxxxxxxxxxx", "track")
    page = hostile.ask(track).text
    [whole] = set(re.findall(r'href="(/track/[^"]+/whole/lyrics)"', page))

    answer = hostile.ask(whole)

    assert len(page) < 50_000
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == "x" * 65_536  # the longest text that a reader accepts


def test_the_full_entry_is_plain_text(hostile: WebClient) -> None:
    [entry, *_others] = re.findall(r'href="(/entry/\d+)"', hostile.ask("/").text)

    assert hostile.ask(entry).headers["content-type"] == "text/plain; charset=utf-8"


def test_hostile_content_cannot_split_an_event(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot)
    write_song(soulspot.music / "song.mp3", title="a\n\nevent: health\ndata: <script>alert(1)</script>\r\rid: 7\n")
    soulspot.scan()

    with page.events(after=0) as events:
        event = next(events)

    assert event.name == "entries"
    assert "<script" not in event.html
    assert [(int(event.id),)] == soulspot.rows("SELECT max(sequence) FROM audit_log")


@pytest.mark.parametrize(
    "path", [*PAGES, "/static/live.js", "/static/soulspot.css", "/nothing", "/cover/track/x", "/login"]
)
def test_every_response_forbids_content_from_other_sites(soulspot: Soulspot, path: str) -> None:
    soulspot.scan()
    headers = WebClient(soulspot).ask(path).headers

    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8337"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "192.168.0.1"}, 421),
        ({"Host": ""}, 400),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8337"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200),
        ({"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/", "/cover/track/x", "/events", "/static/live.js"])
def test_a_request_from_another_site_or_host_name_is_refused(
    shared_page: WebClient, path: str, headers: dict[str, str], status: int
) -> None:
    if status == 200 and path != "/":
        return
    assert shared_page.ask(path, **headers).status == status


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soulspot]:
    soulspot = Soulspot(tmp_path_factory.mktemp("shared"))
    soulspot.scan()
    yield soulspot
    soulspot.kill()


@pytest.fixture(scope="module")
def shared_page(shared: Soulspot) -> WebClient:
    return WebClient(shared)


def test_a_form_from_another_site_is_refused_despite_the_cookie(shared: Soulspot, shared_page: WebClient) -> None:
    cookie, csrf_token = shared_page.log_in(token_of(shared))
    own = f"http://127.0.0.1:{shared_page.port}"
    body = f"csrf_token={csrf_token}&code=corrupt"

    assert shared_page.ask("/failures/retry", "POST", body, Cookie=cookie, Origin="http://evil.example").status == 403
    assert shared_page.ask("/failures/retry", "POST", body, Cookie=cookie, Origin="null").status == 403
    assert shared_page.ask("/failures/retry", "POST", body, Cookie=cookie, Sec_Fetch_Site="same-site").status == 403
    assert shared_page.ask("/failures/retry", "POST", body, Cookie=cookie, Origin=own).status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "POST"])
def test_methods_other_than_reading_are_refused(shared_page: WebClient, method: str) -> None:
    assert shared_page.ask("/", method).status in {400, 405}


def test_a_head_request_gets_no_body(shared_page: WebClient) -> None:
    answer = shared_page.ask("/", "HEAD")

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/../site.py", "/static/%2e%2e/site.py", "/static/..%2f..%2fconfig.py",
        "/cover/track/..%2f..%2fetc%2fpasswd",
        "/cover/track/%2fetc%2fpasswd", "/track/%00", "/track/..", "/entry/-1", "/entry/99999999999999999999999999",
        "/album/' OR 1=1", "/static/", "/static/live.js%00", "//evil.example/%2f..", "/cover/album/%ff",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file_outside_the_catalogue(shared_page: WebClient, path: str) -> None:
    answer = shared_page.ask(path.replace(" ", "%20"))

    assert answer.status == 404
    assert b"root:" not in answer.body
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "query",
    ["/?before=-1", "/?before=x", "/?before=99999999999999999999", "/?before=0", "/failures?after=x&id=y", "/?kind[]=a",
     "/failures?after=2026-01-01T00:00:00%2B00:00&id=%00", "/albums?after=%00", "/albums?by=title&after=%ff&id=%00",
     "/search?q=%00", "/search?q=%ff%fe", "/search?q=%25_%25", "/search?after=%00&q=a", "/artists?after=%ed%a0%80"],
)  # fmt: skip
def test_a_nonsensical_query_gets_a_response(shared_page: WebClient, query: str) -> None:
    assert shared_page.ask(query).status == 200


@pytest.mark.postgresql
def test_a_nonsensical_query_gets_a_response_from_postgresql(postgres_soulspot: Soulspot) -> None:
    postgres_soulspot.scan()
    page = WebClient(postgres_soulspot)

    for query in (
        "/search?q=%00",
        "/search?q=%ff%fe",
        "/albums?after=%00",
        "/track/%00",
        "/cover/album/%00",
        "/artists?after=%ed%a0%80",
    ):
        assert page.ask(query).status in {200, 404}, query
    postgres_soulspot.kill()


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (b"GET /" + b"a" * 600 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b" 414 "),
        (b"GET /?q=" + b"a" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 600_000 + b"\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.0\r\n\r\n", b" 421 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", b" 400 "),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 70000\r\n"
         b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + b"a" * 70_000, b" 413 "),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n"
         b"Content-Type: text/plain\r\n\r\nab", b" 415 "),
    ],
    ids=["path", "query", "head", "two hosts", "no host", "no http", "form", "no form"],
)  # fmt: skip
def test_an_oversized_or_invalid_request_is_refused(shared_page: WebClient, request_: bytes, refusal: bytes) -> None:
    answered = shared_page.raw(request_).splitlines()[:1]

    assert not answered or refusal in answered[0]  # the server may close before it has read everything
    assert shared_page.ask("/").status == 200


def test_silent_connections_are_closed(shared_page: WebClient) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", shared_page.port), timeout=60) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert silent.recv(1) == b""

    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("Ünïcödé 坂本龍一 فيروز 👩\u200d👩\u200d👧", "Ünïcödé 坂本龍一 فيروز 👩\u200d👩\u200d👧"),
        ("a\u202eb", r"a\u202eb"),
        ("a\nb\x1b", r"a\nb\x1b"),
        ("\ud800", r"\ud800"),
        ("a\u3000b\xa0c", "a\u3000b\xa0c"),
    ],
)
def test_hidden_characters_are_shown_and_text_is_unchanged(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_a_long_text_shows_its_length() -> None:
    assert str(shown("<" * 1000, 2)) == "<bdi>&lt;&lt;</bdi>…<small> (1000 characters)</small>"


def test_configured_host_names_work_and_other_machines_get_a_warning(soulspot: Soulspot) -> None:
    soulspot.scan()
    page = WebClient(soulspot, "--listen", "0.0.0.0:0", SOULSPOT_WEB__HOSTS='["music.example"]')

    assert page.ask("/", Host="music.example").status == 200
    assert page.ask("/", Host="music.example:443", Origin="https://music.example:443").status == 200
    assert page.ask("/", Host="other.example").status == 421
    assert "other machines reach" in page.log.read_text()
