"""What a first visit of a page costs a phone: bytes as transferred, and when its explorers answer.

    .venv/bin/python tools/visits.py [page ...] [--book _build/html] [--rate 4] [--times 5] [--table visits.csv]

Each visit begins with an empty cache in a window of 390 x 844 pixels, on a processor that the browser slows `--rate` times; the server
compresses text as servers do. `kB` is all that arrives without scrolling, the page itself included. In milliseconds after the navigation: `paint`,
the first words or pictures; `ready`, the last explorer stands; `answered`, the first explorer shows what an input does as soon as it stands.
`after` is `answered` without `paint`: the aim is 1000. `typeset` is when the formulas are set. Times are medians over the visits. A busy machine
makes them longer, never shorter, so that what keeps the aim there keeps it on a quiet one; `load` is how many processes wanted a processor.
`work` is the least processor time that the page's thread spent from `paint` to `answered` in one more visit each, not slowed, times `--rate`: nearly the same
on a busy machine.
`elsewhere` counts requests to other hosts, which find none: with `--book`, other books' built pages may be visited.
"""

import argparse
import csv
import gzip
import io
import json
import os
import statistics
import sys
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from chromium import PATIENCE, QuietHandler, Server, browser
from survey import ROOT, contents

PHONE = {"width": 390, "height": 844}
TEXT = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".txt"}
COLUMNS = ("page", "kB", "requests", "elsewhere", "paint", "ready", "answered", "after", "work", "typeset", "load")
CLOCK = """
window.visit = {};
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (entry.name === "first-contentful-paint") visit.paint = entry.startTime;
}).observe({type: "paint", buffered: true});
const frame = () => new Promise((done) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = done;
  channel.port2.postMessage(0);
}));
const stands = (place) => place.nextElementSibling?.dataset.ready !== undefined;
let asked = false;
const look = async () => {
  const places = [...document.querySelectorAll('script[type$="widget-view+json"]')];
  if (document.readyState !== "loading" && places.every(stands)) visit.ready ??= places.length && performance.now();
  if (document.readyState !== "loading" && !places.length) visit.answered = 0;
  const first = places.find(stands);
  if (asked || !first) return;
  asked = true;
  const input = first.nextElementSibling.querySelector(".cx :is(input[type=range], input[type=radio]:not(:checked), select, button)");
  if (input?.type === "range") { input.value = +input.value === +input.max ? +input.min : +input.max; input.dispatchEvent(new Event("input", {bubbles: true})); }
  else input?.click();
  await frame();
  visit.answered = performance.now();
  performance.mark("answered");
};
new MutationObserver(look).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["data-ready"]});
addEventListener("DOMContentLoaded", look);"""
DONE = "() => visit.answered !== undefined && visit.ready !== undefined && visit.paint"
TYPESET = """async () => {
  const brings = (one) => one.dataset.later || (one.src.startsWith(location.origin) && /mathjax/i.test(one.src)); // at once or later, from no other host
  if (!document.querySelector(".math") || ![...document.scripts].some(brings)) return;
  while (!window.MathJax?.startup?.promise) await new Promise((done) => setTimeout(done, 20));
  await MathJax.startup.promise;
  visit.typeset = performance.now();
}"""


class Compressing(QuietHandler):
    """Sends text compressed, as the hosts of pages do."""

    def send_head(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in TEXT or not path.is_file():
            return SimpleHTTPRequestHandler.send_head(self)
        content = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        for name, value in (("Content-Type", self.guess_type(path)), ("Content-Encoding", "gzip"), ("Content-Length", len(content))):
            self.send_header(name, str(value))
        self.end_headers()
        return io.BytesIO(content)


def new(opened):
    """A page of a browser that has visited nothing, with the clock."""
    page = opened.new_context(viewport=PHONE).new_page()
    page.set_default_timeout(PATIENCE)
    page.add_init_script(CLOCK)
    return page, page.context


def work(opened, address: str, name: str) -> float:
    """Processor time in milliseconds of a page's own thread from its first paint to the first answer of an explorer; 0 for a page without."""
    page, context = new(opened)
    opened.start_tracing(page=page, categories=["disabled-by-default-devtools.timeline", "loading", "blink.user_timing"])
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_function("() => visit.answered !== undefined")
    events = json.loads(opened.stop_tracing())["traceEvents"]
    context.close()
    answers = [event for event in events if event["name"] == "answered"]
    if not answers:
        return 0
    own = [event for event in events if event["pid"] == answers[0]["pid"] and event["tid"] == answers[0]["tid"]]
    paint = max(event["ts"] for event in own if event["name"] == "firstContentfulPaint")
    return sum(event["tdur"] for event in own if event["name"] == "RunTask" and paint <= event["ts"] <= answers[0]["ts"]) / 1000


def visit(opened, address: str, name: str, rate: float = 4) -> dict:
    """One first visit of a page in a browser: a row of the table."""
    page, context = new(opened)
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Emulation.setCPUThrottlingRate", {"rate": rate})
    sizes, elsewhere = [], []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.on("request", lambda request: elsewhere.extend([] if request.url.startswith((address, "data:", "blob:")) else [request.url]))
    page.goto(f"{address}/{name}.html", wait_until="load")
    page.wait_for_function(DONE)
    page.evaluate(TYPESET)
    page.wait_for_timeout(500)  # what is asked for late
    found = page.evaluate("visit")
    context.close()
    sizes = [size for size in sizes if size]  # pictures within the page have none
    times = {key: found.get(key, 0) for key in ("paint", "ready", "answered", "typeset")}
    return {"page": name, "kB": sum(sizes) / 1000, "requests": len(sizes), "elsewhere": len(elsewhere), **times,
            "after": max(0, times["answered"] - times["paint"]), "work": rate * work(opened, address, name),
            "load": os.getloadavg()[0]}


def middle(rows: list[dict]) -> dict:
    """The medians of visits of one page; of bytes and requests the most."""
    found = {key: max(row[key] for row in rows) for key in ("kB", "requests", "elsewhere")}
    found |= {key: statistics.median(row[key] for row in rows) for key in ("paint", "ready", "answered", "after", "typeset", "load")}
    found["work"] = min(row["work"] for row in rows)
    return {"page": rows[0]["page"]} | {key: round(value, 1 if key == "load" else None) for key, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", help="pages, without .html; by default all of the contents")
    parser.add_argument("--book", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--rate", type=float, default=4, help="how many times slower the processor is (default: %(default)s)")
    parser.add_argument("--times", type=int, default=5, help="visits of each page (default: %(default)s)")
    parser.add_argument("--table", type=Path, help="where the table goes (.csv), besides the screen")
    options = parser.parse_args()
    server = Server(options.book, Compressing)
    table = csv.DictWriter(options.table.open("w", encoding="utf-8", newline="") if options.table else io.StringIO(), COLUMNS)
    table.writeheader()
    print(("{:40}" + "{:>10}" * (len(COLUMNS) - 1)).format(*COLUMNS))
    with browser() as opened:
        for name in options.pages or contents():
            row = middle([visit(opened, server.address, name, options.rate) for _ in range(options.times)])
            table.writerow(row)
            print(("{:40}" + "{:>10}" * (len(COLUMNS) - 1)).format(*(row[column] for column in COLUMNS)), flush=True)
    server.close()
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        print("The machine was busy: on a quiet one times are shorter.", file=sys.stderr)


if __name__ == "__main__":
    main()
