"""The book's own evidence: every plan is carried out, and the records are of the plans' recipes."""

import json
import re
from collections import Counter

import pytest

import experiments_page
from cnnlib.data import book_file, load_result, load_table
from cnnlib.registry import find_variant
from cnnlib.train.experiments import read_experiment

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


def test_every_training_has_a_verdict_on_the_page_of_experiments():
    verdicts = {row["record"]: row for row in load_table("verdicts")}
    assert set(verdicts) <= set(RECORDS) and all(row["verdict"] for row in verdicts.values())
    trained = {name for name in RECORDS if isinstance(load_result(name).get("runs"), dict)}
    assert trained <= set(verdicts)
    assert experiments_page.is_current()


def test_a_row_counts_runs_seeds_and_hours():
    verdict = {"record": "alexnet_ensemble", "verdict": "clear", "published": "none", "chapter": "03_alexnet"}
    cells = [cell.strip() for cell in experiments_page.row(verdict, experiments_page.plans()["alexnet_ensemble"]).split("|")]
    runs = load_result("alexnet_ensemble")["runs"]
    spent = sum(run.get("core_seconds", run["hardware"]["threads"] * sum(row["seconds"] for row in run["rows"])) for run in runs.values())
    assert cells[1:7] == ["`alexnet_ensemble`", "1", "7", "6", "7", f"{spent / 3600:.2f}"]
