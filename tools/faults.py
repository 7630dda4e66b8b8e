"""Deliberate faults: does a test notice when the code is wrong?

    python tools/faults.py                      # every fault of tools/faults/*.toml
    python tools/faults.py train layers -k lr   # two files, of these the faults whose name holds "lr"

Each file lists faults: `name`, `file`, the text to `find` (it must stand there exactly once) and to `replace`, and `tests`,
the arguments of pytest that should notice; a table [defaults] gives `file` and `tests` where a fault has none. Each fault is put
into a copy of the tree by itself. It is caught if a test fails, and survives if all pass; `why` says of a known survivor why no test
can or should see it.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cnnlib", "tests", "tools", "data", "chapters", "pyproject.toml", "requirements.txt", "references.bib", "_toc.yml",
          "_config.yml", "_static", "index.md", "README.md", "CITATION.cff")


def read_faults(path: Path) -> list[dict]:
    """The faults of a file, each with name, file, find, replace, tests. Raises `ValueError` for one that does not fit."""
    plan = tomllib.loads(path.read_text(encoding="utf-8"))
    faults = [{**plan.get("defaults", {}), **fault} for fault in plan["faults"]]
    for fault in faults:
        if missing := {"name", "file", "find", "replace", "tests"} - set(fault):
            raise ValueError(f"{path.name}, fault {fault.get('name')!r} lacks {', '.join(sorted(missing))}")
        count = (ROOT / fault["file"]).read_text(encoding="utf-8").count(fault["find"])
        if count != 1:
            raise ValueError(f"{path.name}, fault {fault['name']!r}: {fault['find']!r} stands {count} times in {fault['file']}")
    return faults


def is_caught(fault: dict, tree: Path, seconds: float) -> bool:
    """Whether the tests fail, or hang, on the tree with this fault in it; the tree is mended again."""
    path = tree / fault["file"]
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(fault["find"], fault["replace"]), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *shlex.split(fault["tests"])]
    try:
        done = subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
                              capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(right, encoding="utf-8")
    if done.returncode not in (0, 1, 2):
        raise ValueError(f"fault {fault['name']!r}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="stems of tools/faults/*.toml; none means all")
    parser.add_argument("-k", default="", help="only faults whose name holds this")
    parser.add_argument("--seconds", type=float, default=300, help="a fault whose tests take longer counts as caught")
    options = parser.parse_args()
    stems = options.files or sorted(path.stem for path in (ROOT / "tools" / "faults").glob("*.toml"))
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            tree.mkdir(exist_ok=True)
            copy(ROOT / name, tree / name)
        for stem in stems:
            faults = [fault for fault in read_faults(ROOT / "tools" / "faults" / f"{stem}.toml") if options.k in fault["name"]]
            caught = 0
            for fault in faults:
                seen = is_caught(fault, tree, options.seconds)
                caught += seen
                print("caught  " if seen else "SURVIVES", stem, fault["name"], "" if seen else fault.get("why", ""), flush=True)
            table[stem] = (caught, len(faults))
    for stem, (caught, count) in {**table, "all": tuple(map(sum, zip(*table.values())))}.items():
        print(f"{stem:12} {caught:4} of {count:4} caught")


if __name__ == "__main__":
    main()
