"""Debian's headless Chromium, as a fixture: what a page does in a real browser."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, expect, sync_playwright

PROGRAMS = ("chromium-headless-shell", "chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start a browser, which ends with its module: its loop is in the way of tests that have one of their own."""
    program = next((found for each in PROGRAMS if (found := shutil.which(each))), None)
    if program is None:
        pytest.skip("Debian's chromium-headless-shell is not installed")
    expect.set_options(timeout=30_000)  # as `until` waits
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[BrowserContext]:
    """Return a browser without a past; what it may not do fails the test at its end."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    faults: list[str] = []
    asked: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        is_away = "net::ERR_" in message.text and "/events" in message.location["url"]
        if message.type in {"error", "warning"} and not is_away:  # that the server ended is no fault of the page
            faults.append(message.text)

    context.on("console", hear)
    context.on("weberror", lambda error: faults.append(str(error.error)))
    context.on("request", lambda request: asked.append(request.url))
    yield context
    context.close()
    assert faults == []
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:"))] == []
