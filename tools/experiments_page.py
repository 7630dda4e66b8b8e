"""Writes `chapters/experiments.md`: every training that the book rests on, its state, cost, seeds and verdict, out of the records.

    python tools/experiments_page.py             write it
    python tools/experiments_page.py --check     fail if it would change

Verdicts and published counterparts stand in `data/verdicts.csv`, one row for each record of trainings.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from cnnlib.data import book_file, load_result, load_table
from cnnlib.train.experiments import Plan, read_plan

PAGE = Path(__file__).parents[1] / "chapters" / "experiments.md"
HEAD = """# Experiments

Every claim of this book that only training can show rests on a run recorded here. Costs are hours of one processor core. A verdict says *clear* where an interval or every seed leaves out the
opposite, *may be* where the runs lean to one side, and *not shown* where they do not carry the claim, whatever papers say. Plans stand in `data/experiments`, records in `data/results`;
`python -m cnnlib.train.campaign --status` tells what is left, and goes on where it stopped when it is called without `--status`. Some plans wait for more hours, or for a GPU (`--budget gpu`).

| experiment | networks | runs | epochs | seeds | core-hours | verdict | published | where |
|---|---|---|---|---|---|---|---|---|
"""


def plans() -> dict[str, Plan]:
    return {path.stem: read_plan(path) for path in sorted(book_file("experiments").glob("*.toml"))}


def hours(run: Mapping[str, object]) -> float:
    """Core-hours of one run; seconds of its rows where an older record holds no core-seconds."""
    seconds = run.get("core_seconds", run.get("processor_seconds"))
    if seconds is None:
        rows = [row for part in run.get("rows", []) for row in (part if isinstance(part, list) else [part])]  # a part for each seed
        seconds = run.get("hardware", {}).get("threads", 1) * sum(row.get("seconds", 0) for row in rows)
    return seconds / 3600


def seeds(runs: Mapping[str, Mapping], recipes: list[Mapping]) -> int:
    """How many seeds stand behind a record: of its recipes, of its runs, or of the accuracies in one run."""
    each = [len(run["test_accuracy"]) for run in runs.values() if isinstance(run.get("test_accuracy"), list)]
    return max([*each, len({recipe["seed"] for recipe in recipes} or {run.get("seed", 0) for run in runs.values()})])


def span(values: set[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def row(verdict: Mapping[str, str], plan: Plan | None) -> str:
    record = load_result(verdict["record"])
    runs = record.get("runs") or {}
    runs = runs if isinstance(runs, Mapping) else {}
    recipes = [run["recipe"] for run in runs.values() if isinstance(run, Mapping) and "recipe" in run]
    planned = len(plan.recipes) if plan else len(runs)
    spent = sum(hours(run) for run in runs.values() if isinstance(run, Mapping))
    networks = len({recipe["model"] for recipe in recipes}) if recipes else ""
    epochs = span({recipe["epochs"] for recipe in recipes}) if recipes else record.get("recipe", {}).get("epochs", "")
    chapter = f"[{verdict['chapter'][:2]}]({verdict['chapter']}.ipynb)" if verdict["chapter"] else ""
    state = "" if not runs else len(runs) if len(runs) == planned else f"{len(runs)} of {planned}"
    cells = (f"`{verdict['record']}`", networks, state, epochs, seeds(runs, recipes) if runs else "", f"{spent:.2f}" if spent else "", verdict["verdict"], verdict["published"], chapter)
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |\n"


def page() -> str:
    waiting, text = plans(), HEAD
    for verdict in load_table("verdicts"):
        text += row(verdict, waiting.pop(verdict["record"], None))
    if waiting:
        text += "\n## Waiting\n\nThese plans are written and not begun:\n\n"
        text += "".join(f"- `{plan.path.stem}` ({len(plan.recipes)} runs): {plan.description}\n" for plan in waiting.values())
    return text


def is_current() -> bool:
    """Whether the page is what the records say."""
    return page() == PAGE.read_text(encoding="utf-8")


def main() -> int:
    if "--check" in sys.argv[1:]:
        return int(not is_current())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
