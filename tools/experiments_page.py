"""Writes `chapters/experiments.md`: every training of this book, done or planned, its state, cost, seeds and verdict, out of the records.

    python tools/experiments_page.py             write it
    python tools/experiments_page.py --check     fail if it would change

Verdicts, published counterparts and chapters stand in `data/verdicts.csv`, one row for each record of trainings and for each plan without
a record; `estimate` holds the core-hours that a plan would take on a CPU: from what `python -m cnnlib.train.campaign --status --probe` found
on a core of our machine to what recorded runs of such networks took on it while it was busy.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import notebooks
from cnnlib.data import book_file, load_result, load_table
from cnnlib.judging import sentence
from cnnlib.train.experiments import Plan, network_of, read_plan

PAGE = Path(__file__).parents[1] / "chapters" / "experiments.md"
HEAD = """# Experiments

Every recorded training of our own is listed here, with what it cost and what it shows. Some claims of the chapters are not settled by any run of ours. There the text gives the papers' figures and says so, and the run that would settle them
is listed here as *planned*: it was written down before anybody carried it out.

A verdict says *clear* where an interval or every seed leaves out the opposite, *may be* where the runs lean to one side, and *not shown* where they do not support the claim, whatever papers say. Core-hours are hours of one processor core;
those of plans, in brackets, are estimates. What is *done* has ended as its plan says; what is *recorded* was measured by a program in `tools/experiments`, and where that has not ended, the verdict says so. Plans are in `data/experiments`, records in `data/results`; `python -m cnnlib.train.campaign --status` tells what is left, and without `--status` it carries that out, on a GPU with the plans' larger budgets.

## At a glance

| experiment | state | core-hours |
|---|---|--:|
"""
ELSEWHERE = "For the pages themselves"


@dataclass(frozen=True)
class Facts:
    """What records and plan say of one experiment; a count that does not apply is None, as `planned` where a program of
    its own made the record. `networks` differ in name or arguments."""

    description: str
    runs: int | None
    planned: int | None
    networks: int | None
    epochs: str
    seeds: int | None
    hours: float

    @property
    def state(self) -> str:
        if self.runs == 0:
            return "planned"
        if self.planned is None:
            return "recorded"
        return "done" if self.runs == self.planned else f"{self.runs} of {self.planned} runs"


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


def different(recipes: list[Mapping]) -> int:
    """How many networks recipes are about; another way to train one makes no other."""
    return len(set(map(network_of, recipes)))


def planned(plan: Plan) -> int:
    """How many runs a plan has; of those that wait for probes, one of each network and seed will be carried out."""
    return len(plan.recipes) + len({(network_of(recipe.to_dict()), recipe.seed) for recipe in plan.waiting.values()})


def facts(name: str, plan: Plan | None) -> Facts:
    """Of the record of that name; of the plan alone where there is no record."""
    if not book_file("results").joinpath(f"{name}.json").exists():
        recipes = [recipe.to_dict() for recipe in (plan.recipes | plan.waiting).values()]
        return Facts(plan.description, 0, planned(plan), different(recipes), span({recipe["epochs"] for recipe in recipes}),
                     len({recipe["seed"] for recipe in recipes}), 0.0)
    record = load_result(name)
    runs = record.get("runs") or {}
    runs = {key: run for key, run in runs.items() if isinstance(run, Mapping)} if isinstance(runs, Mapping) else {}
    recipes = [run["recipe"] for run in runs.values() if "recipe" in run]
    epochs = span({recipe["epochs"] for recipe in recipes}) if recipes else str(record.get("recipe", {}).get("epochs", ""))
    return Facts(plan.description if plan else record.get("description", ""), len(runs) or None, planned(plan) if plan else None,
                 different(recipes) or None, epochs, seeds(runs, recipes) if runs else None, sum(map(hours, runs.values())))


def cost(verdict: Mapping[str, str], found: Facts) -> str:
    return f"{found.hours:.2f}" if found.hours else f"({verdict['estimate']})" if verdict.get("estimate") else ""


def row(verdict: Mapping[str, str], found: Facts) -> str:
    name = verdict["record"]
    cells = (f"{verdict['chapter'][:2]} [{name}](#{name})".strip(), ", ".join([found.state, *counted(found.seeds, "seed")]), cost(verdict, found))
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def counted(number: int | None, word: str) -> list[str]:
    return [f"{number} {word}{'s' * (number != 1)}"] if number else []


def entry(verdict: Mapping[str, str], found: Facts) -> str:
    """What is compared, the verdict, its published counterpart, and where it stands."""
    spent = cost(verdict, found)
    parts = [found.state, *counted(found.networks, "network"),
             *(counted(found.planned, "run") if found.state == "planned" else counted(found.runs, "run") if found.state in ("done", "recorded") else []),
             *([f"{found.epochs} epoch{'s' * (found.epochs != '1')}"] if found.epochs else []), *counted(found.seeds, "seed"),
             *([f"{'about ' * (spent[0] == '(')}{spent.strip('()')} core-hours"] if spent else [])]
    lines = [f"### {verdict['record']}", sentence(found.description.rstrip(" .")),
             f"*{', '.join(parts)}*", f"**{verdict['verdict']}.**" if found.state == "planned" else f"**Verdict.** {verdict['verdict']}."]
    if verdict["published"] != "none":
        lines.append(f"**Published.** {verdict['published']}.")
    if verdict["chapter"]:
        place = "on [the second page]" if verdict["chapter"].endswith(notebooks.DEPTH) else "in [the chapter]"
        lines.append(f"It stands {place}({verdict['chapter']}.ipynb).")
    return "\n\n".join(lines) + "\n\n"


def titles() -> dict[str, str]:
    """The title of each chapter by its number."""
    return {path.name[:2]: notebooks.read(path).cells[0].source.partition("\n")[0].removeprefix("# ") for path in notebooks.first_pages()}


def page() -> str:
    known = plans()
    rows = sorted(load_table("verdicts"), key=lambda verdict: verdict["chapter"][:2] or "99")
    found = {verdict["record"]: facts(verdict["record"], known.get(verdict["record"])) for verdict in rows}
    text = HEAD + "".join(row(verdict, found[verdict["record"]]) for verdict in rows) + "\n"
    names, group = titles(), None
    for verdict in rows:
        if (chapter := verdict["chapter"][:2]) != group:
            group = chapter
            text += f"## {names.get(chapter, ELSEWHERE)}\n\n"
        text += entry(verdict, found[verdict["record"]])
    return text.rstrip("\n") + "\n"


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
