"""The book's own evidence: every plan is carried out, and the records are of the plans' recipes."""

import json
import re
from collections import Counter

import pytest
import torch

import experiments_page
import notebooks
from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.data import book_file, load_result, load_table
from cnnlib.registry import find_variant
from cnnlib.train.experiments import read_experiment, read_plan

PLANS = sorted(path.stem for path in book_file("experiments").glob("*.toml"))
RECORDS = sorted(path.stem for path in book_file("results").glob("*.json"))


def test_there_are_plans_and_records():
    assert len(PLANS) > 5 and len(RECORDS) > 15


@pytest.mark.parametrize("name", RECORDS)
def test_record_says_what_it_is_and_where_it_was_measured(name):
    record = load_result(name)
    text = json.dumps(record)
    assert "NaN" not in text and "Infinity" not in text
    assert '"hardware"' in text and '"versions"' in text


def test_readme_lists_every_record_and_nothing_else():
    text = book_file("README.md").read_text(encoding="utf-8").partition("## Records")[2]
    assert sorted(re.findall(r"`(\w+)\.json`", text)) == RECORDS


@pytest.mark.parametrize("name", PLANS)
def test_recorded_runs_are_those_of_the_plan(name):
    if name not in RECORDS:
        pytest.skip("a plan for the reader's own hardware: no record")
    _, recipes, ensembles = read_experiment(book_file(f"experiments/{name}.toml"))
    record = load_result(name)
    assert set(record["runs"]) <= set(recipes) and set(record.get("ensembles", {})) == set(ensembles)
    for run, entry in record["runs"].items():
        assert recipes[run].differences(entry["recipe"]) == [], run
        assert len(entry["rows"]) == recipes[run].epochs, run
        assert all(0 <= row["test_accuracy"] <= 100 for row in entry["rows"])


@pytest.mark.parametrize("name", ["benchmark", "convnext_steps", "degradation"])
def test_plan_is_carried_out_in_full(name):
    _, recipes, _ = read_experiment(book_file(f"experiments/{name}.toml"))
    assert sorted(set(recipes) - set(load_result(name)["runs"])) == []


def test_benchmark_has_three_seeds_of_every_network_in_it():
    """A new small-image form may stand in the package before somebody trains it; what is in the benchmark is in it in full."""
    runs = load_result("benchmark")["runs"].values()
    seeds = Counter()
    for model, arguments, _ in {(run["recipe"]["model"], json.dumps(run["recipe"]["model_args"]), run["recipe"]["seed"])
                                for run in runs}:
        seeds[model, arguments] += 1
    assert min(seeds.values()) >= 3
    assert len({find_variant(model).family for model, _ in seeds}) >= 19


def test_every_training_and_every_plan_has_a_verdict_on_the_page_of_experiments():
    verdicts = {row["record"]: row for row in load_table("verdicts")}
    assert set(verdicts) <= {*RECORDS, *PLANS} and all(row["verdict"] for row in verdicts.values())
    trained = {name for name in RECORDS if isinstance(load_result(name).get("runs"), dict)}
    assert trained | set(PLANS) <= set(verdicts)
    for name, row in verdicts.items():
        assert row["verdict"].startswith("Planned") == (name not in RECORDS), name
        assert bool(row["estimate"]) == (name not in RECORDS), name
    assert experiments_page.is_current()


def test_a_row_counts_runs_seeds_and_hours():
    verdict = {"record": "alexnet_ensemble", "verdict": "clear", "published": "none", "chapter": "03_alexnet"}
    found = experiments_page.facts("alexnet_ensemble", experiments_page.plans()["alexnet_ensemble"])
    cells = [cell.strip() for cell in experiments_page.row(verdict, found).split("|")]
    runs = load_result("alexnet_ensemble")["runs"]
    spent = sum(run.get("core_seconds", run["hardware"]["threads"] * sum(row["seconds"] for row in run["rows"])) for run in runs.values())
    assert cells[1:4] == ["03 [alexnet_ensemble](#alexnet_ensemble)", "done, 7 seeds", f"{spent / 3600:.2f}"]
    text = experiments_page.entry(verdict, found)
    assert f"*done, 1 network, 7 runs, 6 epochs, 7 seeds, {spent / 3600:.2f} core-hours*" in text
    assert "**Verdict.** clear." in text and "Published" not in text and "[the chapter](03_alexnet.ipynb)" in text


def test_a_plan_that_nobody_has_begun_tells_what_it_would_take():
    verdict = {"record": "drop_path", "verdict": "Planned; why", "published": "a paper", "chapter": "09_dense_and_fractal_depth", "estimate": "40"}
    found = experiments_page.facts("drop_path", experiments_page.plans()["drop_path"])
    assert (found.state, found.networks, found.planned, found.seeds) == ("planned", 3, 27, 3)
    assert experiments_page.row(verdict, found) == "| 09 [drop_path](#drop_path) | planned, 3 seeds | (40) |\n"
    assert "*planned, 3 networks, 27 runs, 30 epochs, 3 seeds, about 40 core-hours*" in experiments_page.entry(verdict, found)


def test_a_plan_that_has_begun_tells_how_far_it_is():
    half = experiments_page.Facts("", 2, 8, 2, "30", 1, 2.7)
    assert (half.state, experiments_page.Facts("", 8, 8, 4, "30", 2, 9.0).state) == ("2 of 8 runs", "done")


@pytest.mark.parametrize("name", PLANS)
def test_plans_build_their_networks_for_both_budgets(name):
    for budget in ("cpu", "gpu"):
        plan = read_plan(book_file(f"experiments/{name}.toml"), budget)
        recipes = [*plan.recipes.values(), *plan.waiting.values()]
        for model, arguments in {(recipe.model, json.dumps(recipe.model_args)) for recipe in recipes}:
            with torch.device("meta"):
                create_model(model, num_classes=10, **json.loads(arguments))


COMPARED = {  # what stands in every comparison, each at all step sizes and seeds
    "blocks_at_equal_cost": (7, 3, 5), "auxiliary_heads": (4, 3, 5), "dense_against_residual": (3, 3, 5), "drop_path": (3, 3, 5),
    "relu_tanh_dropout": (5, 5, 5), "imagenette": (25, 3, 3),
}


@pytest.mark.parametrize("name", COMPARED)
def test_both_sides_of_a_planned_comparison_get_the_same_step_sizes_and_seeds(name):
    """But for step size, seed and network the runs of a plan are alike; only ZFNet names its size of photographs."""
    plan = read_plan(book_file(f"experiments/{name}.toml"), "gpu")
    runs = plan.recipes | plan.waiting
    sides = {}
    for run, recipe in runs.items():
        side, _, _ = run.partition(", lr ")
        assert run == f"{side}, lr {recipe.lr:g}, seed {recipe.seed}"
        sides.setdefault(side, set()).add((recipe.lr, recipe.seed))
    networks, rates, seeds = COMPARED[name]
    assert len(sides) == networks and len(set(map(frozenset, sides.values()))) == 1
    tried = next(iter(sides.values()))
    assert len(tried) == rates * seeds == len({lr for lr, _ in tried}) * len({seed for _, seed in tried})
    alike = [recipe.to_dict() | {"model": "", "model_args": {}, "lr": 0, "seed": 0} for recipe in runs.values()]
    assert all(recipe == alike[0] for recipe in alike)


def test_the_blocks_that_are_to_be_compared_cost_about_the_same():
    work = {}
    for recipe in read_plan(book_file("experiments/blocks_at_equal_cost.toml")).recipes.values():
        with torch.device("meta"):
            work[recipe.model, str(recipe.model_args)] = cost_table(create_model(recipe.model, **recipe.model_args).eval(), (3, 32, 32)).total.macs
    base = work["resnet20", "{}"]
    assert all(abs(macs / base - 1) < 0.13 for macs in work.values()) and len(work) == 7


TOLD = {  # what a page tells of the record of exercises: (runs, key)
    "01_components": [("01 LeNet-5", "right"), ("01 LeNet-5 without ReLUs, with averages", "right")],
    "03_alexnet": [("03 mirrored and moved by 3", "old"), ("03 mirrored and moved by 3", "right"), ("03 as they are", "right"),
                   ("03 mirrored and moved by 0", "right"), ("03 mirrored and moved by 12", "right"),
                   ("03 mirrored and moved by 3, 120 epochs", "right"), ("03 as they are, 120 epochs", "right")],
    "06_googlenet": [("06 mean", "right"), ("06 flat", "right"), ("06 mean, no normalization", "right")],
}


def span(group, key):
    values = sorted(run[key] for name, run in load_result("exercises")["runs"].items() if name.rpartition(", seed ")[0] == group)
    low, high = (int(value + 0.5) for value in (values[0], values[-1]))
    return f"{low}%" if low == high else f"{low} to {high}%"


@pytest.mark.parametrize("page", TOLD)
def test_a_page_tells_what_the_record_of_exercises_holds(page):
    text = " ".join(cell.source for cell in notebooks.read(notebooks.CHAPTERS / f"{page}.ipynb").cells if cell.cell_type == "markdown")
    assert "experiments.md#exercises" in text
    for group, key in TOLD[page]:
        assert span(group, key) in text, (group, key, span(group, key))
