"""The console in headless Chromium: against a mock for what a real server cannot be brought to say,
against the real binary for the rest.

MILLPOWER_BINARY    the program              (build/release/millpower)
MILLPOWER_MODEL     what --model gets        (models/demo)
MILLPOWER_CHROMIUM  the browser              (/usr/bin/chromium)
"""

import os
import time
import urllib.parse

import pytest
from playwright.sync_api import sync_playwright

import mock_server
import real_server

CHROMIUM = os.environ.get("MILLPOWER_CHROMIUM", "/usr/bin/chromium")
# Debian's Chromium as a program for tests: no GPU, no sandbox (containers run as root), and nothing
# that looks for updates or calls home.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--disable-dev-shm-usage"]
WAIT_MS = 10_000


class Console:
    """A tab with the console in it. Keeps what the tab complains of, and asks for elsewhere."""

    def __init__(self, context, url):
        self.context = context
        self.url = url
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints = []
        self.elsewhere = []
        self.expects_failures = False  # of requests, which Chromium writes to its console
        self.page.on("console", self._on_message)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        context.on("request", self._on_request)

    def _on_message(self, message):
        if message.type not in ("error", "warning"):
            return
        if self.expects_failures and "Failed to load resource" in message.text:
            return
        self.complaints.append(message.text)

    def _on_request(self, request):
        origin = urllib.parse.urlsplit(request.url)
        if origin.scheme in ("blob", "data"):
            return
        if f"{origin.scheme}://{origin.netloc}" != self.url:
            self.elsewhere.append(request.url)

    def open(self):
        self.page.goto(self.url + "/console/")
        self.page.wait_for_selector("h1")
        return self

    def sign_in(self, key):
        self.open()
        self.page.get_by_label("Key").fill(key)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector("nav")
        return self

    def show(self, place, heading=None):
        """Goes to '#/PLACE' and waits until the page is there."""
        self.page.goto(f"{self.url}/console/#/{place}")
        if heading:
            self.page.get_by_role("heading", name=heading, level=1).wait_for()
        self.until(
            "document.querySelector('main .page')?.childElementCount > 0 && "
            "!document.querySelector('main').innerText.includes('Loading…')")
        return self

    def until(self, condition):
        """Waits for a JavaScript expression. (Playwright's own way to wait for one is eval, which
        the page's policy forbids.)"""
        deadline = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, f"never: {condition}"
            time.sleep(0.02)

    def main(self):
        return self.page.inner_text("main")

    def button(self, name, exact=True):
        return self.page.get_by_role("button", name=name, exact=exact)

    def close(self):
        assert self.complaints == []
        assert self.elsewhere == []


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True,
                                             args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser, request):
    options = {"viewport": {"width": 1280, "height": 900}}
    marker = request.node.get_closest_marker("browser")
    options.update(marker.kwargs if marker else {})
    context = browser.new_context(**options)
    yield context
    context.close()


@pytest.fixture
def mock():
    server = mock_server.MockServer()
    yield server
    server.stop()


@pytest.fixture
def console(context, mock):
    """Signed out, at the mock."""
    console = Console(context, mock.url)
    yield console
    console.close()


@pytest.fixture
def operator(console):
    return console.sign_in(mock_server.ADMIN_KEY)


@pytest.fixture
def tenant(console):
    return console.sign_in(mock_server.TENANT_KEY)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = real_server.RealServer(tmp_path_factory.mktemp("server"))
    yield server
    assert server.stop() == 0


@pytest.fixture
def open_console(browser, server):
    """Opens tabs, each in a browser profile of its own, at the real server's admin port, or its
    public one."""
    opened = []

    def open_one(url=server.admin_url):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        opened.append((context, Console(context, url)))
        return opened[-1][1]

    yield open_one
    for context, console in opened:
        console.close()
        context.close()


def pytest_configure(config):
    config.addinivalue_line("markers", "browser(**options): of the browser's context")
