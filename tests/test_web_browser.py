"""The page in headless Chromium: live without a reload, by keyboard, on a phone, in the dark, and safe."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, expect
from playwright.sync_api import Page as Tab
from tests.conftest import Soulspot, until, write_song
from tests.support.web_client import WebClient, picture, token_of, write_covered
from tests.test_web_safety import HOSTILE

pytestmark = pytest.mark.browser

SHOWN = ["/", "/?kind=all", "/?by=hour", "/albums", "/artists", "/failures", "/health", "/login", "/search?q=song"]


@pytest.fixture
def page(soulspot: Soulspot) -> WebClient:
    """Return the page of a small library that a daemon watches."""
    for number in range(3):
        write_covered(soulspot.music / "Album" / f"{number}.mp3", picture((40 * number, 90, 120)),
                      title=f"Song {number}", artist="Somebody", album="Songs", tracknumber=str(number))  # fmt: skip
    (soulspot.music / "broken.mp3").write_bytes(b"no audio at all" * 100)
    soulspot.watch()
    until(lambda: len(soulspot.tracks()) == 3 and soulspot.actions("file_failed"))
    return WebClient(soulspot)


@pytest.fixture
def tab(page: WebClient, browser_context: BrowserContext) -> Tab:
    tab = browser_context.new_page()
    tab.goto(page.where)
    return tab


def test_a_dropped_file_appears_without_a_reload(soulspot: Soulspot, tab: Tab) -> None:
    tab.evaluate("window.same = true")

    write_song(soulspot.music / "Album" / "new.mp3", title="Dropped just now", artist="Somebody", album="Songs")

    expect(tab.locator("#stream > li").first).to_contain_text("Dropped just now")
    expect(tab.locator("#news")).to_have_text("1 new entry")
    assert tab.evaluate("window.same")
    tab.locator("#stream > li").first.locator("img").scroll_into_view_if_needed()
    until(lambda: tab.evaluate("document.querySelector('#stream img').naturalWidth") == 24)


def test_a_reconnected_page_gets_missed_entries_in_order(soulspot: Soulspot, page: WebClient, tab: Tab) -> None:
    page.stop()
    for number in range(3):
        write_song(soulspot.music / f"missed {number}.mp3", title=f"Missed {number}")
    until(lambda: len(soulspot.tracks()) == 6)
    WebClient(soulspot, "--listen", f"127.0.0.1:{page.port}")

    expect(tab.locator("#stream > li .title", has_text="Missed")).to_have_count(3)
    numbers = [
        int(each) for each in tab.locator("#stream > li").evaluate_all("all => all.map(e => e.dataset.sequence)")
    ]
    assert numbers == sorted(set(numbers), reverse=True)


def test_only_entries_of_the_chosen_kind_appear(soulspot: Soulspot, page: WebClient, tab: Tab) -> None:
    tab.goto(f"{page.where}?kind=failed")

    write_song(soulspot.music / "fine.mp3", title="Fine")
    (soulspot.music / "also broken.mp3").write_bytes(b"no audio at all" * 50)

    expect(tab.locator("#stream")).to_contain_text("also broken.mp3")
    expect(tab.locator("#stream")).not_to_contain_text("Fine")


def test_the_first_entry_replaces_the_note_of_an_empty_history(
    soulspot: Soulspot, browser_context: BrowserContext
) -> None:
    soulspot.watch()
    until(lambda: soulspot.rows("SELECT 1 FROM folders"))
    tab = browser_context.new_page()
    tab.goto(WebClient(soulspot).where)
    expect(tab.locator("main > .nothing")).to_be_visible()

    write_song(soulspot.music / "first.mp3", title="The first")

    expect(tab.locator("#stream")).to_contain_text("The first")
    expect(tab.locator("main > .nothing")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_every_page_passes_the_automatic_accessibility_checks(
    chromium: Browser, page: WebClient, scheme: str, width: int
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)  # type: ignore[arg-type]
    tab = context.new_page()
    links = [page.first_link("/search?q=song", "track"), page.first_link("/albums", "album")]
    links += [page.first_link("/artists", "artist"), page.first_link("/failures", "track"), "/nothing"]

    for where in [*SHOWN, *links]:
        tab.goto(page.where.rstrip("/") + where)
        results = Axe().run(tab)
        assert results.violations_count == 0, f"{where}: {results.generate_report()}"
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, f"{where} is wider than the window"
        assert tab.locator("h1").count() == 1
    context.close()


def test_the_keyboard_reaches_everything_and_focus_is_visible(tab: Tab, page: WebClient) -> None:
    tab.goto(f"{page.where}failures")
    wanted = tab.locator("a[href], button, input:not([type=hidden]), summary").count()
    seen = set()

    for number in range(wanted + 1):
        tab.keyboard.press("Tab")
        described = tab.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e === document.body ? '' : e.outerHTML, s.outlineStyle, parseFloat(s.outlineWidth)] }"
        )
        if number == 0:
            assert 'class="skip"' in described[0]
        if described[0]:
            assert described[1] != "none", described
            assert described[2] >= 2, described
            seen.add(described[0])

    assert len(seen) >= wanted - 2  # two differ only in position


def test_the_skip_link_leads_to_the_content(tab: Tab) -> None:
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")

    assert tab.evaluate("document.activeElement.id") == "main"


def test_a_song_and_its_history_can_be_found_without_javascript(chromium: Browser, page: WebClient) -> None:
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.where)

    tab.get_by_label("Search title, artist, album or path").fill("song 2")
    tab.get_by_role("button", name="Search").click()
    tab.get_by_role("link", name="Song 2").first.click()

    expect(tab.get_by_role("heading", level=1)).to_have_text("Song 2")
    expect(tab.locator(".history")).to_contain_text("added")
    context.close()


def test_a_user_with_the_token_can_request_a_retry(soulspot: Soulspot, page: WebClient, tab: Tab) -> None:
    token = token_of(soulspot)
    tab.goto(f"{page.where}login#{token}")
    assert tab.url == f"{page.where}login"
    tab.get_by_role("button", name="Log in").click()
    tab.wait_for_url("**/failures")

    tab.get_by_role("button", name="Retry").first.click()

    expect(tab.get_by_role("status")).to_contain_text(re.compile("Retrying|Not possible"))
    assert tab.evaluate("document.cookie") == ""


def test_hostile_tags_run_no_script_in_a_browser(soulspot: Soulspot, browser_context: BrowserContext) -> None:
    soulspot.watch()
    page = WebClient(soulspot)
    tab = browser_context.new_page()
    tab.on("dialog", lambda dialog: pytest.fail(f"a file opened a dialog: {dialog.message}"))
    tab.goto(page.where)
    for number, text in enumerate(HOSTILE):
        write_song(soulspot.music / f"{number}.mp3", title=text.replace("\0", ""), artist=text.replace("\0", ""))

    expect(tab.locator("#stream > li.entry")).to_have_count(len(HOSTILE))
    for where in ("", "artists", "?kind=all", *page_links(tab)):
        tab.goto(page.where + where.removeprefix("/"))
        assert tab.evaluate("[...document.scripts].map(e => e.src)") == [f"{page.where}static/live.js"]
        assert tab.locator("main script, main iframe, main style, main [onerror], main [style]").count() == 0


def page_links(tab: Tab) -> list[str]:
    return tab.locator("#stream a.title").evaluate_all("all => all.map(e => e.getAttribute('href'))")


def test_another_site_can_neither_read_nor_frame_the_page(page: WebClient, chromium: Browser) -> None:
    context = chromium.new_context()
    tab = context.new_page()
    tab.route("http://evil.example/**", lambda route: route.fulfill(body="<h1>evil</h1>", content_type="text/html"))
    tab.goto("http://evil.example/")

    asked = f"fetch('{page.where}health', {{mode: 'no-cors', credentials: 'include'}})"
    read = tab.evaluate(f"{asked}.then(r => r.type + r.status, () => 'refused')")
    image = tab.evaluate(
        "address => new Promise(done => { const i = new Image(); i.onload = () => done('seen');"
        " i.onerror = () => done('refused'); i.src = address; })",
        f"{page.where}static/icon.svg",
    )
    tab.evaluate(f"document.body.innerHTML = '<iframe src=\"{page.where}\"></iframe>'")
    tab.wait_for_timeout(500)

    assert read == "refused"
    assert image == "refused"
    assert all("soulspot" not in (frame.title() if frame.url.startswith("http") else "") for frame in tab.frames[1:])
    context.close()


def test_reduced_motion_is_respected(soulspot: Soulspot, tab: Tab) -> None:
    write_song(soulspot.music / "new.mp3", title="Dropped just now")
    expect(tab.locator("#stream > li").first).to_contain_text("Dropped just now")

    assert tab.locator("#stream > li").first.evaluate("e => getComputedStyle(e).animationName") == "none"
