"""Experiments: a file of recipes in, a record of measured results out; what is recorded is skipped.

A file such as `data/experiments/alexnet.toml` has a `description`, a table `[defaults]` of recipe fields, and tables
`[runs."<name>"]` of the fields that differ; `recipe = "modern"` in either starts from a recipe by name.
`[ensembles."<name>"]` with `members` averages the probabilities of runs. A `priority` says which file goes first in a
campaign (the highest; 0 if not given). Tables `[budgets.cpu]` and `[budgets.gpu]` hold fields for one kind of machine,
which stand above the defaults and below a run's own; `runs`, a list of patterns such as "*, seed 0", names those that it
can afford. Where a budget has `probes = "<name>"`, another file beside this one with short runs of the same networks, only the
step size whose probe had the best accuracy is carried out, and a network waits until all its probes are recorded.
The record `data/results/alexnet.json` holds for every run: recipe, rows, parameters, core-seconds, hardware, versions;
that of the budget "gpu" is `alexnet_gpu.json`.
"""

import json
import os
import platform
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from cnnlib.running import best_device, has_bfloat16, name_of, predict
from cnnlib.train import distributed
from cnnlib.train.checkpoint import load_checkpoint, only_writer, tested_weights, write_whole
from cnnlib.train.loop import Data, fit, load_data, make_batches, make_model, memory_format, parts_of
from cnnlib.train.recipe import Recipe
from cnnlib.train.recipes import named

BUDGETS = ("cpu", "gpu")
KEYS = ("description", "priority", "defaults", "budgets", "runs", "ensembles")


@dataclass(frozen=True)
class Plan:
    """A file of experiments as one budget sees it: its recipes by run, members by ensemble, and where they are recorded."""

    path: Path
    description: str
    recipes: dict[str, Recipe]
    ensembles: dict[str, list[str]] = field(default_factory=dict)
    priority: float = 0.0
    budget: str = "cpu"
    waiting: dict[str, Recipe] = field(default_factory=dict)  # runs of networks whose probes are not all recorded

    @property
    def record(self) -> Path:
        suffix = "" if self.budget == "cpu" else f"_{self.budget}"
        return self.path.parent.parent / "results" / f"{self.path.stem}{suffix}.json"

    def checkpoint(self, run: str, work: str | Path = "runs") -> Path:
        return Path(work) / self.record.stem / f"{run}.pt"


def read_plan(path: str | os.PathLike, budget: str = "cpu") -> Plan:
    """A file of experiments for a budget. Raises `ValueError` that names the file for what makes no sense."""
    path = Path(path)
    try:
        return _plan(path, tomllib.loads(path.read_text(encoding="utf-8")), budget)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _plan(path: Path, plan: Mapping[str, object], budget: str) -> Plan:
    if budget not in BUDGETS:
        raise ValueError(f"budget={budget!r}; choose one of {', '.join(map(repr, BUDGETS))}")
    if unknown := sorted(set(plan) - set(KEYS)):
        raise ValueError(f"expected {', '.join(KEYS)}; found {', '.join(unknown)}")
    for key in KEYS[2:]:
        if not isinstance(plan.get(key, {}), Mapping):
            raise ValueError(f"{key} must be a table, not {plan[key]!r}")
    for key in ("budgets", "runs", "ensembles"):
        for name, table in plan.get(key, {}).items():
            if not isinstance(table, Mapping):
                raise ValueError(f"[{key}.{name}] must be a table, not {table!r}")
    if not plan.get("runs"):
        raise ValueError("there are no runs")
    if unknown := sorted(set(plan.get("budgets", {})) - set(BUDGETS)):
        raise ValueError(f"a budget is one of {', '.join(BUDGETS)}, not {', '.join(unknown)}")
    if not isinstance(plan.get("priority", 0), (int, float)):
        raise ValueError(f"priority={plan['priority']!r} must be a number")
    table = dict(plan.get("budgets", {}).get(budget, {}))
    patterns = table.pop("runs", ["*"])
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"[budgets.{budget}]: runs={patterns!r} must be a list of patterns")
    probes = table.pop("probes", None)
    if idle := [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in plan["runs"])]:
        raise ValueError(f"[budgets.{budget}]: runs={idle[0]!r} fits no run")
    recipes = {}
    for name, fields in plan["runs"].items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            fields = {**plan.get("defaults", {}), **table, **fields}
            known = fields.pop("recipe", None)
            try:
                recipes[name] = named(known, **fields) if known is not None else Recipe.from_dict(fields)
            except ValueError as error:
                raise ValueError(f"run {name!r}: {error}") from error
    waiting: dict[str, Recipe] = {}
    if probes is not None:
        recipes, waiting = _probed(recipes, read_plan(path.with_name(f"{probes}.toml"), budget))
    ensembles = {}
    for name, entry in plan.get("ensembles", {}).items():
        if set(entry) != {"members"} or not isinstance(entry["members"], list):
            raise ValueError(f"ensemble {name!r} must have members, a list of runs, and nothing else")
        if missing := [member for member in entry["members"] if member not in plan["runs"]]:
            raise ValueError(f"ensemble {name!r} names runs that are not there: {', '.join(map(str, missing))}")
        if set(entry["members"]) <= set(recipes):
            ensembles[name] = entry["members"]
    return Plan(path, plan.get("description", ""), recipes, ensembles, float(plan.get("priority", 0)), budget, waiting)


def _probed(recipes: Mapping[str, Recipe], probes: Plan) -> tuple[dict[str, Recipe], dict[str, Recipe]]:
    """The runs whose step size had the best probe of their network, and those whose network's probes are not all recorded."""
    record = read_record(probes.record, runs={})["runs"]
    tried: dict[str, dict[float, float | None]] = {}  # network -> step size -> accuracy
    for name, probe in probes.recipes.items():
        if name in record:
            check_recorded(probes, name, record[name])
        tried.setdefault(network_of(probe.to_dict()), {})[probe.lr] = record[name]["rows"][-1]["test_accuracy"] if name in record else None
    chosen, waiting = {}, {}
    for name, recipe in recipes.items():
        found = tried.get(network_of(recipe.to_dict()), {})
        if recipe.lr not in found:
            raise ValueError(f"run {name!r}: {probes.path.name} has no probe of {recipe.model} with lr={recipe.lr:g}")
        if None in found.values():
            waiting[name] = recipe
        elif recipe.lr == max(found, key=lambda lr: (found[lr], -lr)):
            chosen[name] = recipe
    return chosen, waiting


def network_of(recipe: Mapping[str, object]) -> str:
    """What tells the networks of recipes apart: name and arguments, as JSON."""
    return json.dumps([recipe["model"], recipe["model_args"]], sort_keys=True)


def read_experiment(path: str | os.PathLike) -> tuple[str, dict[str, Recipe], dict[str, list[str]]]:
    """Description, recipes by run name, and members by ensemble name. Raises `ValueError` for what makes no sense."""
    plan = read_plan(path)
    return plan.description, plan.recipes, plan.ensembles


# --- carrying out -----------------------------------------------------------------------------------------------------


def run_experiment(
    path: str | os.PathLike, *, runs: Collection[str] = (), work: str | os.PathLike = "runs", budget: str = "cpu",
    device: torch.device | str | None = None, log: Callable[[str], None] = print,
) -> Path:
    """Do every run of the file that is not recorded yet, resuming what was cut off; returns the record's path.

    The record is `../results/<file's stem>.json` beside the file's folder, written after every run. Checkpoints go to
    `work/<stem>/<run>.pt`. With `runs`, only those are done, and no ensembles: several processes or machines can share
    a file. An unknown run, or a recorded one whose recipe has changed since, raises `ValueError`.
    """
    plan = read_plan(path, budget)
    recipes, ensembles = plan.recipes, plan.ensembles
    if unknown := [name for name in runs if name not in recipes]:
        raise ValueError(f"{path} has no run {', '.join(map(repr, unknown))}; its runs are {', '.join(map(repr, recipes))}")
    if runs:
        recipes, ensembles = {name: recipe for name, recipe in recipes.items() if name in runs}, {}
    device = torch.device(device) if device is not None else best_device()
    loaded = {}  # a set that several runs share is read once
    record = read_record(plan.record, runs={})

    def data_of(recipe: Recipe) -> Data:
        key = recipe.data, recipe.image_size
        if key not in loaded:
            loaded[key] = load_data(recipe)
        return loaded[key]

    for name, recipe in recipes.items():
        if (done := record["runs"].get(name)) is not None:
            check_recorded(plan, name, done)
            continue
        checkpoint, data = plan.checkpoint(name, work), data_of(recipe)
        rows = []
        for row in fit(recipe, data=data, device=device, checkpoint=checkpoint, log=lambda text, name=name: log(f"{name}: {text}")):
            rows.append(row)
            log(f"{name}: " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
        with torch.device("meta"):
            params = sum(p.numel() for p in make_model(replace(recipe, weights=""), data[0].classes).parameters())
        state = load_checkpoint(checkpoint)
        spent = {key: state[key] for key in ("core_seconds", "precision", "history") if key in state}
        record = add_to_record(plan, "runs", name, run_record(recipe, data, device, params=params, rows=rows, **spent))

    for name, members in ensembles.items():
        if record.get("ensembles", {}).get(name, {}).get("members") != members:
            entry = {"members": members, **ensemble(plan, members, data_of, device, work)}
            record = add_to_record(plan, "ensembles", name, entry)
    return plan.record


def check_recorded(plan: Plan, name: str, done: Mapping[str, object]) -> None:
    if differ := plan.recipes[name].differences(done["recipe"]):
        raise ValueError(f"{plan.record} holds run {name!r} with another recipe ({', '.join(differ)} differ); "
                         "rename the run or remove its record")


def add_to_record(plan: Plan, table: str, name: str, entry: Mapping[str, object]) -> dict:
    """The record of the plan with an entry more, written; another process may have added to it meanwhile, or do so now."""
    if distributed.rank() > 0:
        return {"runs": {}, table: {name: entry}}
    with only_writer(plan.record, wait_seconds=60):
        record = {**read_record(plan.record, runs={}, ensembles={}), "description": plan.description}
        record.setdefault(table, {})[name] = entry
        write_record(plan.record, record)
    return record


def hardware(device: torch.device) -> dict[str, object]:
    """What a result was measured on: processor, threads or GPU, and versions."""
    where = {"device": device.type, "versions": {"python": platform.python_version(), "torch": torch.__version__}}
    if device.type != "cpu":
        return {**where, "name": name_of(device)}
    return {**where, "name": name_of(device), "threads": torch.get_num_threads(), "bfloat16_instructions": has_bfloat16(device)}


def run_record(recipe: Recipe, data: Data, device: torch.device, **measured: object) -> dict[str, object]:
    """What a record says of one run: its recipe, images and hardware, and what was `measured`."""
    train, test = parts_of(recipe, data)
    return {
        "recipe": recipe.to_dict(), "data": data[0].name, "train_images": recipe.train_images or len(train),
        "test_images": len(test), **measured, "hardware": hardware(device),
    }


def ensemble(
    plan: Plan, members: list[str], data_of: Callable[[Recipe], Data], device: torch.device, work: str | os.PathLike
) -> dict:
    """Accuracy in percent of the mean of the first k members' probabilities, for k = 1 ... len(members).

    Top-1 for all k, and top-5 as well if there are more than five classes.
    """
    total, top1, top5, alone = 0, [], [], []
    for name in members:
        recipe = replace(plan.recipes[name], weights="")
        data = data_of(recipe)
        model = make_model(recipe, data[0].classes)
        model.load_state_dict(tested_weights(load_checkpoint(plan.checkpoint(name, work), recipe=plan.recipes[name])))
        model.to(device, memory_format=memory_format(recipe))
        test_batches = make_batches(recipe, data, device)[1]
        logits, labels = predict(model, test_batches, recipe.precision)
        total = total + logits.softmax(1)
        alone.append(accuracy(logits, labels, 1))
        top1.append(accuracy(total, labels, 1))
        if logits.shape[1] > 5:
            top5.append(accuracy(total, labels, 5))
    return {"members_accuracy": alone, "accuracy": top1, "top5_accuracy": top5}


def accuracy(scores: torch.Tensor, labels: torch.Tensor, k: int) -> float:
    """Percentage of rows (N, classes) whose true label is among the k highest scores."""
    return 100 * (scores.topk(k).indices == labels[:, None]).any(1).float().mean().item()


def read_record(path: Path, **start: object) -> dict:
    """What a record holds so far, or `start` where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else start


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Write JSON with figures rounded to six digits, whole or not at all."""

    def rounded(value):
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, Mapping):
            return {key: rounded(entry) for key, entry in value.items()}
        return [rounded(entry) for entry in value] if isinstance(value, (list, tuple)) else value

    write_whole(path, (json.dumps(rounded(record), indent=1, ensure_ascii=False) + "\n").encode())
