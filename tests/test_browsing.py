"""What the page tests take for a problem of a page, and what for the browser's own doing."""

import io
import threading
from contextlib import redirect_stderr

from browsing import Watched
from chromium import QuietHandler, Server

HEAD = '<!doctype html><title>A page</title><link rel="icon" href="data:,">'
LATE = """<script>addEventListener("load", () => { new Image().src = "late.png"; });</script>"""
GIVES_UP = """<script>const hand = new AbortController(); fetch("late.png", {signal: hand.signal}).catch(() => {}); hand.abort();</script>"""
BROKEN = """<img src="no.png"><img src="cut.png"><script>console.error("said")</script>"""


class Handler(QuietHandler):
    """Answers for late.png once it is told to, and hangs up instead of an answer for cut.png."""

    go_on = threading.Event()

    def do_GET(self):
        if self.path == "/late.png":
            self.go_on.wait(60)
            self.send_response(200)
            self.end_headers()
            for _ in range(100):  # to nobody, if the page has been left
                self.wfile.write(bytes(100_000))
        elif self.path != "/cut.png":
            super().do_GET()


def test_only_what_a_page_does_itself_is_its_problem(browser, tmp_path):
    for name, text in (("late", LATE), ("gives_up", GIVES_UP), ("broken", BROKEN), ("plain", "")):
        (tmp_path / f"{name}.html").write_text(HEAD + text)
    said = io.StringIO()
    with redirect_stderr(said):
        server = Server(tmp_path, Handler)
        watched = Watched(browser, server.address)
        watched.open(f"{server.address}/late.html")
        watched.open(f"{server.address}/plain.html")  # cancels what late.html still waits for
        Handler.go_on.set()
        assert watched.problems == []

        Handler.go_on.clear()
        watched.open(f"{server.address}/gives_up.html")
        watched.open(f"{server.address}/broken.html")
        Handler.go_on.set()
        found = "\n".join(watched.close())
        server.close()
    assert "gives_up.html: failed (net::ERR_ABORTED): " in found, "the page cancelled it, not the browser"
    assert "missing: " in found and "no.png" in found and "broken.html: said" in found
    assert "failed (net::ERR_EMPTY_RESPONSE): " in found and "cut.png" in found
    assert said.getvalue() == "", "a server says nothing of a browser that hangs up"
