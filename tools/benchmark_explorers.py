"""How quickly the explorers answer: from an input to the next painted frame, in Chromium, on a page without a kernel.

    python tools/benchmark_explorers.py             print the figures
    python tools/benchmark_explorers.py --write     and record them in data/results/benchmark_explorers.json
    python tools/benchmark_explorers.py --networks --write     only the networks' rows; the others of the record stay

Every explorer gets the same kind of input many times; `first` is the answer to the first one, before anything is warm.
A network that runs on the page gets two rows: from the click that fetches it (its files lie on this machine) to the frame with its first
answer, each time on a page opened anew, and from the choice of another photograph to the frame with the answer for it; both come out of a
worker, so that their `work` is left out. Its maps are drawn after that frame.

`work` is the processor time that the page's thread spends on one answer (the median), whoever else is busy. The aim is
100 ms. `load` is the number of processes that wanted a processor meanwhile: with more than there are processors, the
times are longer than a reader's.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from chromium import Server, browser

from cnnlib import widgets
from cnnlib.widgets import follow
from cnnlib.train.experiments import hardware, write_record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browsing import Watched, bare_page  # noqa: E402

TARGET = ROOT / "data" / "results" / "benchmark_explorers.json"
INPUTS = 7  # after which every control stands elsewhere than at the start
PAUSE = 600  # ms after each, for what an explorer does afterwards
PAGES, OTHERS = 5, 2  # openings of a page with a network, and further photographs on each

# What is done for the i-th time: a slider moved, one of two buttons pressed, a list's next entry chosen, a column sorted.
SLIDER = """(i) => { const node = document.querySelector('.cx input[type=range]'); node.value = +node.min + (i % 2);
  node.dispatchEvent(new Event('input', {bubbles: true})); }"""
RADIO = """(i) => { const group = document.querySelectorAll('.cx-radio')[%d]; group.querySelectorAll('input')[i %% 2 ? 0 : 1].click(); }"""
CHOICE = """(i) => { const node = document.querySelectorAll('.cx select')[%d]; node.selectedIndex = i %% 2 ? %d : %d;
  node.dispatchEvent(new Event('change', {bubbles: true})); }"""
SORT = "(i) => document.querySelector('[data-sort=params]').click()"
SEARCH = """(i) => { const node = document.querySelector('.cx input[type=search]'); node.value = i % 2 ? '' : 'conv';
  node.dispatchEvent(new Event('input', {bubbles: true})); }"""

CASES = {
    "convolution arithmetic: kernel moved": (lambda: widgets.ConvolutionArithmetic(16, 3, 1), SLIDER),
    "kernel stacks: preset chosen": (lambda: widgets.StackDesigner(), CHOICE % (0, 1, 2)),
    "receptive field, alexnet_227: layer moved": (lambda: widgets.ReceptiveFieldExplorer("alexnet_227"), SLIDER),
    "receptive field, densenet201: layer moved": (lambda: widgets.ReceptiveFieldExplorer("densenet201"), SLIDER),
    "effective field, alexnet_227: layer moved": (
        lambda: widgets.ReceptiveFieldExplorer("alexnet_227", footprints=True), SLIDER),
    "cost table, alexnet_227: units": (lambda: widgets.CostTableExplorer("alexnet_227"), RADIO % 1),
    "cost table, densenet201: units": (lambda: widgets.CostTableExplorer("densenet201"), RADIO % 1),
    "cost table, densenet201: sorted": (lambda: widgets.CostTableExplorer("densenet201"), SORT),
    "cost table, densenet201: filtered": (lambda: widgets.CostTableExplorer("densenet201"), SEARCH),
    "cost table, densenet201 beside densenet121: units": (
        lambda: widgets.CostTableExplorer("densenet201", "densenet121"), RADIO % 1),
    "block designer: a control moved": (lambda: widgets.BlockDesigner(), SLIDER),
    "Inception designer: a control moved": (lambda: widgets.InceptionDesigner(), SLIDER),
    "map of architectures: axis chosen": (lambda: widgets.ArchitectureMap(), CHOICE % (1, 0, 1)),
    "map of architectures: scale": (lambda: widgets.ArchitectureMap(), RADIO % 0),
}

# Milliseconds from one input to the frame that shows what it did.
MEASURE = """async (i) => {
  const act = %s;
  const start = performance.now();
  act(i);
  await new Promise((done) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = done;
    channel.port2.postMessage(0);
  }));
  return performance.now() - start;
}"""


def task_seconds(session) -> float:
    """Processor time of the page's own thread so far: scripts, styles, layout, painting."""
    return next(one["value"] for one in session.send("Performance.getMetrics")["metrics"] if one["name"] == "TaskDuration")


def measure(browser, explorer, action: str) -> tuple[list[float], list[float]]:
    """Milliseconds from each input to its frame, and the processor time of the page's thread for it."""
    with tempfile.TemporaryDirectory() as folder:
        bare_page(Path(folder), explorer)
        server = Server(folder)
        watched = Watched(browser, server.address)
        try:
            page = watched.open(f"{server.address}/index.html")
            page.wait_for_timeout(500)
            before = page.locator(".cx").inner_html()
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            times, work = [], []
            for number in range(INPUTS):
                before_input = task_seconds(session)
                times.append(page.evaluate(MEASURE % action, number))
                work.append(1000 * (task_seconds(session) - before_input))
                page.wait_for_timeout(PAUSE)
            if page.locator(".cx").inner_html() == before or watched.problems:
                raise RuntimeError(f"{explorer!r} did not answer: {watched.problems}")
            return times, work
        finally:
            watched.close()
            server.close()


# Milliseconds from a press of a button to the frame with another answer.
ANSWER = """async (button) => {
  const root = document.querySelector('.cx');
  const answer = () => root.querySelector('.cx-answers button') && root.querySelector('.cx-answers').innerText;
  const before = answer();
  const start = performance.now();
  const changed = new Promise((done) => new MutationObserver((_, observer) => {
    if (!answer() || answer() === before) return;
    observer.disconnect();
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => done(performance.now() - start);
      channel.port2.postMessage(0);
    });
  }).observe(root, {childList: true, subtree: true, characterData: true}));
  [...root.querySelectorAll('button')].find((one) => one.textContent.startsWith(button) || one.dataset.photograph === button).click();
  return changed;
}"""


def measure_live(browser, network: str) -> dict[str, list[float]]:
    """Milliseconds to the first answer of a network, on several pages, and to those for further photographs."""
    with tempfile.TemporaryDirectory() as folder:
        bare_page(Path(folder), widgets.FollowPhotograph(network))
        live = Path(folder) / "live"
        live.mkdir()
        for name in (f"{network}.json", f"{network}.safetensors", *(f"{photograph}.jpg" for photograph in follow.PHOTOGRAPHS)):
            (live / name).write_bytes(follow.file(name))
        server = Server(folder)
        times = {"fetched": [], "another photograph": []}
        try:
            for _ in range(PAGES):
                watched = Watched(browser, server.address)
                page = watched.open(f"{server.address}/index.html")
                page.wait_for_timeout(2 * PAUSE)  # as a reader looks before a press; the engine compiles meanwhile
                times["fetched"].append(page.evaluate(ANSWER, "Fetch and run"))
                for photograph in list(follow.PHOTOGRAPHS)[1:1 + OTHERS]:
                    page.wait_for_timeout(2 * PAUSE)
                    times["another photograph"].append(page.evaluate(ANSWER, photograph))
                if problems := watched.close():
                    raise RuntimeError(f"{network}: {problems}")
            return times
        finally:
            server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"record in {TARGET.relative_to(ROOT)}")
    parser.add_argument("--networks", action="store_true", help="only the networks that run on pages")
    options = parser.parse_args()
    rows = json.loads(TARGET.read_text(encoding="utf-8"))["rows"] if options.write and options.networks else []
    rows = [row for row in rows if "work" in row]  # those of no network
    if os.getloadavg()[0] > 0.5 * os.cpu_count():
        print(f"not quiet: {os.getloadavg()[0]:.1f} processes want {os.cpu_count()} processors; these times are no reader's", file=sys.stderr)
    with browser() as opened:
        version = opened.version
        for name, (make, action) in ({} if options.networks else CASES).items():
            times, work = measure(opened, make(), action)
            row = {"input": name, "first": round(times[0], 1), "median": round(statistics.median(times), 1),
                   "slowest": round(max(times), 1), "work": round(statistics.median(work), 1), "load": round(os.getloadavg()[0], 1)}
            rows.append(row)
            print("{input:55} first {first:6.1f}  median {median:6.1f}  slowest {slowest:6.1f}  work {work:5.1f} ms  (load {load})".format(**row),
                  flush=True)
        for network in follow.offered():
            for what, times in measure_live(opened, network).items():
                row = {"input": f"{network}: {what}", "first": round(times[0], 1), "median": round(statistics.median(times), 1),
                       "slowest": round(max(times), 1), "load": round(os.getloadavg()[0], 1)}
                rows.append(row)
                print("{input:55} first {first:6.1f}  median {median:6.1f}  slowest {slowest:6.1f} ms  (load {load})".format(**row), flush=True)
    if options.write:
        write_record(TARGET, {
            "description": "From an input to the next painted frame, on a page without a kernel; milliseconds",
            "inputs": INPUTS, "rows": rows,
            "hardware": {**hardware(torch.device("cpu")), "processors": os.cpu_count(), "browser": f"Chromium {version}"},
        })


if __name__ == "__main__":
    main()
