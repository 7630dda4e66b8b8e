"""A browser that finds no host but this machine, and a server of a folder: what the tools that print and typeset need."""

import contextlib
import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 180_000  # ms that a page may take on a busy machine


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@contextlib.contextmanager
def chromium() -> Iterator:
    """A page of Chromium, closed at the end. Exits with a line that says what is missing."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not path:
        sys.exit("no browser: install one (Debian: apt-get install chromium), or set CHROMIUM to the path of one")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("no playwright: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, timeout=PATIENCE, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder, on this machine only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
