"""Deliberate faults: does a test notice when the code is wrong?

    python tools/faults.py                      # every fault of tools/faults/*.toml
    python tools/faults.py train layers -k lr   # two files, of these the faults whose name holds "lr"

Each file lists faults: `name`, `file`, the text to `find` (it must stand there exactly once) and to `replace`, and
`tests`, the arguments of pytest that should notice; a table [defaults] gives `file` and `tests` where a fault has none.
Each fault is put into a copy of the tree by itself. It is caught if a test fails, and survives if all pass; `why` says
of a known survivor why no test can or should see it.

The libraries are imported once: each fault's tests run in a copy of this process (`os.fork`), which imports the tree's
own modules anew.
"""

import argparse
import contextlib
import importlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cnnlib", "tests", "tools", "data", "chapters", "_static", "pyproject.toml", "requirements.txt",
          "references.bib", "_toc.yml", "_config.yml", "index.md", "README.md", "CITATION.cff")
LIBRARIES = ("pytest", "hypothesis", "numpy", "torch", "torch.utils.flop_counter", "matplotlib.pyplot", "pandas",
             "ipywidgets", "anywidget", "nbformat", "scipy.stats", "PIL.Image")


def read_faults(path: Path) -> list[dict]:
    """The faults of a file. Raises `ValueError` for one that lacks something or does not fit the code."""
    plan = tomllib.loads(path.read_text(encoding="utf-8"))
    faults = [{**plan.get("defaults", {}), **fault} for fault in plan["faults"]]
    for fault in faults:
        if missing := {"name", "file", "find", "replace", "tests"} - set(fault):
            raise ValueError(f"{path.name}, fault {fault.get('name')!r} lacks {', '.join(sorted(missing))}")
        count = (ROOT / fault["file"]).read_text(encoding="utf-8").count(fault["find"])
        if count != 1:
            raise ValueError(f"{path.name}, fault {fault['name']!r}: {fault['find']!r} stands {count} times "
                             f"in {fault['file']}")
    return faults


def load_libraries() -> None:
    """Import once what every test would import again: the libraries, and nothing of the tree."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    left = [name for name in sys.modules if name.split(".")[0] in ("cnnlib", "conftest", "zoo")]
    assert not left, f"{left} would be the same with and without the fault"


def run_tests(arguments: list[str], tree: Path, log: Path, seconds: float) -> int | None:
    """pytest's exit status in a copy of this process, `None` after `seconds`; what it prints stands in `log`."""
    process = os.fork()
    if not process:
        status = 70  # of a copy that cannot even start pytest
        try:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(tree)
            os.environ["PYTHONPATH"] = str(tree)
            ours = (ROOT, ROOT / "tools")
            sys.path[:] = [str(tree), *(place for place in sys.path if Path(place or ".").resolve() not in ours)]
            status = int(sys.modules["pytest"].main(arguments))
            sys.stdout.flush()
        finally:
            os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            break
        time.sleep(0.02)
    else:
        status = None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # all that hang, or what a test left behind
    if status is None:
        os.waitpid(process, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def is_caught(fault: dict, tree: Path, seconds: float) -> bool:
    """Whether the tests fail, or hang, on the tree with this fault in it; the tree is mended again."""
    path = tree / fault["file"]
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(fault["find"], fault["replace"]), encoding="utf-8")
    log = tree.parent / "log.txt"
    try:
        arguments = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *shlex.split(fault["tests"])]
        status = run_tests(arguments, tree, log, seconds)
    finally:
        path.write_text(right, encoding="utf-8")
    if status not in (0, 1, 2, None) and status > 0:
        said = log.read_text(encoding="utf-8", errors="replace")
        raise ValueError(f"fault {fault['name']!r}: pytest ended with {status}\n{said[-4000:]}")
    return status != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="stems of tools/faults/*.toml; none means all")
    parser.add_argument("-k", default="", help="only faults whose name holds this")
    parser.add_argument("--sound", action="store_true", help="first run the tests without a fault: they must pass")
    parser.add_argument("--seconds", type=float, default=300, help="a fault whose tests take longer counts as caught")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # no fault stays behind in a compiled file
    load_libraries()
    stems = options.files or sorted(path.stem for path in (ROOT / "tools" / "faults").glob("*.toml"))
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            tree.mkdir(exist_ok=True)
            copy(ROOT / name, tree / name)
        for stem in stems:
            every = read_faults(ROOT / "tools" / "faults" / f"{stem}.toml")
            faults = [fault for fault in every if options.k in fault["name"]]
            for tests in dict.fromkeys(fault["tests"] for fault in faults) if options.sound else ():
                none = {**faults[0], "replace": faults[0]["find"], "tests": tests}
                assert not is_caught(none, tree, options.seconds), f"without a fault: {tests}"
            caught = 0
            for fault in faults:
                seen = is_caught(fault, tree, options.seconds)
                caught += seen
                why = "" if seen else fault.get("why", "")
                print("caught  " if seen else "SURVIVES", stem, fault["name"], why, flush=True)
            table[stem] = (caught, len(faults))
    for stem, (caught, count) in {**table, "all": tuple(map(sum, zip(*table.values())))}.items():
        print(f"{stem:12} {caught:4} of {count:4} caught")


if __name__ == "__main__":
    main()
