"""Fixtures that drive a real browser: Debian's headless Chromium."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, expect, sync_playwright
from tests.support.deadlines import load_factor

PROGRAMS = ("chromium-headless-shell", "chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start a browser for one module: its event loop gets in the way of tests that run one of their own."""
    program = next((found for each in PROGRAMS if (found := shutil.which(each))), None)
    if program is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def browser_context(chromium: Browser) -> Iterator[BrowserContext]:
    """Return a browser without cookies or cache; errors on its console and requests elsewhere fail the test."""
    expect.set_options(timeout=30_000 * load_factor())  # as long as `until` waits
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    errors: list[str] = []
    requested: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        is_server_down = "net::ERR_" in message.text and "/events" in message.location["url"]
        if message.type in {"error", "warning"} and not is_server_down:  # the page expects that
            errors.append(message.text)

    context.on("console", on_console)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    context.on("request", lambda request: requested.append(request.url))
    yield context
    context.close()
    assert errors == []
    assert [url for url in requested if not url.startswith(("http://127.0.0.1:", "data:"))] == []
