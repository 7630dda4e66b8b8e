"""A browser that finds no host but this machine, and a server of a folder: for tests of pages, and for tools that print, typeset and photograph."""

import contextlib
import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 180_000  # ms that a page may take on a busy machine; every wait ends as soon as it can
BROWSERS = "chromium-headless-shell", "chromium", "google-chrome"  # the first has no windows: half the processor time


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """A server of a folder, in threads of its own; a browser that hangs up in the middle of an answer is no error."""

    def __init__(self, folder, handler=QuietHandler):
        super().__init__(("127.0.0.1", 0), functools.partial(handler, directory=folder))
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def close(self):
        self.shutdown()
        self.server_close()


def find() -> str | None:
    """The path of the browser: what `CHROMIUM` names, or the one that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


def launch(playwright, path: str):
    """A browser that finds no host but this machine."""
    return playwright.chromium.launch(executable_path=path, timeout=PATIENCE, args=[
        "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])


@contextlib.contextmanager
def browser() -> Iterator:
    """Such a browser, closed at the end. Exits with a line that says what is missing."""
    path = find()
    if not path:
        sys.exit("no browser: install one (Debian: apt-get install chromium-headless-shell), or set CHROMIUM to the path of one")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("no playwright: pip install playwright")
    with sync_playwright() as playwright:
        found = launch(playwright, path)
        yield found
        found.close()


@contextlib.contextmanager
def chromium() -> Iterator:
    """A page of that browser, wide and light."""
    with browser() as found:
        page = found.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        yield page
