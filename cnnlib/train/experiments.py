"""Experiments: a file of recipes in, a record of measured results out; what is recorded is skipped.

A file such as `data/experiments/alexnet.toml` has a `description`, a table `[defaults]` of recipe fields, and tables
`[runs."<name>"]` of the fields that differ; `recipe = "modern"` in either starts from a recipe by name.
`[ensembles."<name>"]` with `members` averages the probabilities of runs.
The record `data/results/alexnet.json` holds for every run: recipe, rows, parameters, hardware, versions.
"""

import json
import os
import platform
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch

from cnnlib.registry import create_model
from cnnlib.train.checkpoint import load_checkpoint, tested_weights
from cnnlib.train.loop import Data, best_device, fit, load_data, make_batches, memory_format, predict
from cnnlib.train.recipe import Recipe
from cnnlib.train.recipes import named


def hardware(device: torch.device) -> dict[str, object]:
    """What a result was measured on: processor, threads or GPU, and versions."""
    where = {"device": device.type, "versions": {"python": platform.python_version(), "torch": torch.__version__}}
    if device.type == "cuda":
        return {**where, "name": torch.cuda.get_device_name(device)}
    return {**where, "name": _processor(), "threads": torch.get_num_threads(),
            "bfloat16_instructions": bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_experiment(path: str | os.PathLike) -> tuple[str, dict[str, Recipe], dict[str, list[str]]]:
    """Description, recipes by run name, and members by ensemble name. Raises `ValueError` for what makes no sense."""
    plan = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    unknown = set(plan) - {"description", "defaults", "runs", "ensembles"}
    if unknown or not plan.get("runs"):
        raise ValueError(f"{path}: expected description, [defaults], [runs.NAME], [ensembles.NAME]; "
                         + (f"found {', '.join(sorted(unknown))}" if unknown else "there are no runs"))
    recipes = {}
    for name, fields in plan["runs"].items():
        fields = {**plan.get("defaults", {}), **fields}
        known = fields.pop("recipe", None)
        recipes[name] = named(known, **fields) if known is not None else Recipe.from_dict(fields)
    ensembles = {name: table["members"] for name, table in plan.get("ensembles", {}).items()}
    for name, members in ensembles.items():
        if missing := [member for member in members if member not in recipes]:
            raise ValueError(f"{path}: ensemble {name!r} names runs that are not there: {', '.join(missing)}")
    return plan.get("description", ""), recipes, ensembles


def run_experiment(
    path: str | os.PathLike, *, runs: Collection[str] = (), work: str | os.PathLike = "runs", log=print
) -> Path:
    """Do every run of the file that is not recorded yet, resuming what was cut off; returns the record's path.

    The record is `../results/<file's stem>.json` beside the file's folder, written after every run. Checkpoints go to
    `work/<stem>/<run>.pt`. With `runs`, only those are done, and no ensembles: several processes or machines can share
    a file. An unknown run, or a recorded one whose recipe has changed since, raises `ValueError`.
    """
    path = Path(path)
    description, recipes, ensembles = read_experiment(path)
    if unknown := [name for name in runs if name not in recipes]:
        raise ValueError(f"{path} has no run {', '.join(map(repr, unknown))}; its runs are {', '.join(map(repr, recipes))}")
    if runs:
        recipes, ensembles = {name: recipe for name, recipe in recipes.items() if name in runs}, {}
    target = path.parent.parent / "results" / f"{path.stem}.json"

    def begun() -> dict:
        return {**read_record(target, runs={}, ensembles={}), "description": description}

    record = begun()
    device = best_device()
    folder = Path(work) / path.stem
    loaded = {}  # a set that several runs share is read once

    def data_of(recipe: Recipe) -> Data:
        key = recipe.data, recipe.image_size
        if key not in loaded:
            loaded[key] = load_data(recipe)
        return loaded[key]

    for name, recipe in recipes.items():
        done = record["runs"].get(name)
        if done is not None:
            if differ := recipe.differences(done["recipe"]):
                raise ValueError(f"{target} holds run {name!r} with another recipe ({', '.join(differ)} differ); "
                                 "rename the run or remove its record")
            continue
        data = data_of(recipe)
        rows = []
        for row in fit(recipe, data=data, device=device, checkpoint=folder / f"{name}.pt"):
            rows.append(row)
            log(f"{name}: " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
        with torch.device("meta"):
            params = sum(p.numel() for p in create_model(recipe.model, **recipe.model_args).parameters())
        record = begun()  # another process may have added to it meanwhile
        record["runs"][name] = run_record(recipe, data, device, params=params, rows=rows)
        write_record(target, record)

    for name, members in ensembles.items():
        if record.setdefault("ensembles", {}).get(name, {}).get("members") != members:
            record["ensembles"][name] = {"members": members, **ensemble(folder, recipes, members, data_of, device)}
            write_record(target, record)
    return target


def run_record(recipe: Recipe, data: Data, device: torch.device, **measured: object) -> dict[str, object]:
    """What a record says of one run: its recipe, images and hardware, and what was `measured`."""
    return {
        "recipe": recipe.to_dict(), "data": data[0].name, "train_images": recipe.train_images or len(data[0]),
        "test_images": len(data[1]), **measured, "hardware": hardware(device),
    }


def ensemble(
    folder: Path, recipes: Mapping[str, Recipe], members: list[str], data_of: Callable[[Recipe], Data],
    device: torch.device,
) -> dict:
    """Accuracy in percent of the mean of the first k members' probabilities, for k = 1 ... len(members).

    Top-1 for all k, and top-5 as well if there are more than five classes.
    """
    total, top1, top5, alone = 0, [], [], []
    for name in members:
        recipe = recipes[name]
        model = create_model(recipe.model, **recipe.model_args)
        model.load_state_dict(tested_weights(load_checkpoint(folder / f"{name}.pt", recipe=recipe)))
        model.to(device, memory_format=memory_format(recipe))
        test_batches = make_batches(recipe, data_of(recipe), device)[1]
        logits, labels = predict(model, test_batches, recipe, device)
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
        return [rounded(entry) for entry in value] if isinstance(value, list) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    text = json.dumps(rounded(record), indent=1, ensure_ascii=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)
