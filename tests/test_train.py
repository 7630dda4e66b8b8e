"""Training: it learns, goes on exactly where it stopped, and names what it cannot use."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from torch import nn

from cnnlib import data
from cnnlib.train import Recipe, experiments, fit, load_checkpoint, save_checkpoint
from cnnlib.train.__main__ import main
from cnnlib.train.optimization import Schedule, total_loss

QUICK = dict(model="alexnet_cifar", data="shapes", epochs=3, batch_size=16, train_images=64, lr=0.01)


@pytest.fixture(scope="module")
def small():
    return data.shapes(100, 30)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(8 * 15 * 15, 10))


def rows_without_time(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# learning


def test_overfits_a_batch(small):
    recipe = Recipe(epochs=40, batch_size=32, train_images=32, lr=0.05, weight_decay=0.0)
    rows = list(fit(recipe, model=network(), data=small))
    assert rows[-1]["train_loss"] < 0.1 < rows[0]["train_loss"]
    assert [row["epoch"] for row in rows] == list(range(1, 41))


@pytest.mark.parametrize("changes", [
    {"optimizer": "adamw", "lr": 1e-3}, {"precision": "bfloat16"}, {"schedule": "step"}, {"schedule": "plateau"},
    {"warmup_epochs": 1.0, "clip": 1.0, "label_smoothing": 0.1}, {"crop": 2, "flip": True, "cutout": 4},
    {"channels_last": False, "nesterov": True},
], ids=lambda changes: next(iter(changes)))
def test_every_switch_trains(small, changes):
    recipe = Recipe.from_dict({"epochs": 2, "batch_size": 16, "train_images": 64, "lr": 0.01, **changes})
    first, last = fit(recipe, model=network(), data=small)
    assert last["train_loss"] < first["train_loss"]


def test_evaluation_counts_every_image_once(small):
    row = next(fit(Recipe(epochs=1, batch_size=32), model=network(), data=(small[0], small[1].first(7))))
    assert (row["test_accuracy"] * 7 / 100) == pytest.approx(round(row["test_accuracy"] * 7 / 100), abs=1e-4)


def test_auxiliary_logits_are_weighed():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    main_loss = nn.functional.cross_entropy(logits, labels)
    recipe = Recipe(aux_weight=0.3)
    torch.testing.assert_close(total_loss(logits, labels, recipe), main_loss)
    torch.testing.assert_close(total_loss((logits, logits, logits), labels, recipe), 1.6 * main_loss)


def test_loss_that_is_no_number_stops_the_run(small):
    with pytest.raises(ValueError, match="not a number in epoch 1, seen after step [12]: lr=1e[+]30 may be too large"):
        list(fit(Recipe(epochs=1, batch_size=16, lr=1e30), model=network(), data=small))


# schedules


def test_schedules():
    cosine = Schedule(Recipe(epochs=10, lr=1.0, warmup_epochs=2))
    assert [round(cosine.lr(time), 6) for time in (0, 1, 2, 6, 10)] == [0, 0.5, 1, 0.5, 0]
    step = Schedule(Recipe(epochs=10, lr=1.0, schedule="step"))
    assert [round(step.lr(time), 6) for time in (0, 4.9, 5, 7.5)] == [1, 1, 0.1, 0.01]
    plateau = Schedule(Recipe(epochs=10, lr=1.0, schedule="plateau", patience=2))
    for accuracy in (50, 60, 59, 60):
        plateau.see(accuracy)
    assert plateau.lr(4) == 0.1


# checkpoints


def test_resume_is_exact(small, tmp_path):
    recipe = Recipe(**QUICK)
    whole = list(fit(recipe, data=small, checkpoint=tmp_path / "whole.pt"))
    cut = fit(recipe, data=small, checkpoint=tmp_path / "cut.pt")
    next(cut)
    cut.close()
    torch.manual_seed(99)  # whatever else happened in between
    resumed = list(fit(recipe, data=small, checkpoint=tmp_path / "cut.pt"))
    assert rows_without_time(resumed) == rows_without_time(whole)
    states = [load_checkpoint(tmp_path / name)["model"] for name in ("whole.pt", "cut.pt")]
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states)))


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """The first of the small set's images as files, which a command reads in no time."""
    root = tmp_path_factory.mktemp("images")
    for part, image_set in (("train", small[0].first(64)), ("test", small[1])):
        for number, (image, label) in enumerate(zip(image_set.images, image_set.labels)):
            place = root / part / image_set.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{number}.png")
    return root


def test_resume_after_a_kill_is_exact(tmp_path, folder):
    def arguments(path):
        return ["alexnet_cifar", "--data", f"folder:{folder}", "--epochs", "8", "--batch-size", "16", "--lr", "0.01",
                "--crop", "2", "--flip", "--checkpoint", str(path)]

    process = subprocess.Popen([sys.executable, "-m", "cnnlib.train", *arguments(tmp_path / "killed.pt")],
                               stdout=subprocess.DEVNULL)
    while not (tmp_path / "killed.pt").exists() and process.poll() is None:  # the test's own limit ends it
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 1 <= load_checkpoint(tmp_path / "killed.pt")["epoch"] <= 8
    for name in ("killed.pt", "whole.pt"):
        main(arguments(tmp_path / name))
    killed, whole = (load_checkpoint(tmp_path / name) for name in ("killed.pt", "whole.pt"))
    assert rows_without_time(killed["rows"]) == rows_without_time(whole["rows"])
    assert all(torch.equal(a, b) for a, b in zip(killed["model"].values(), whole["model"].values()))


class Hostile:
    def __reduce__(self):
        return os.system, ("echo hostile",)


@pytest.mark.parametrize("content, message", [
    (b"", "damaged"), (b"PK\x03\x04 half a file", "damaged"), ({"model": {}}, "it lacks recipe, epoch"), (Hostile(), "damaged"),
], ids=["empty", "half", "foreign", "hostile"])
def test_bad_checkpoint_is_refused_and_kept(tmp_path, small, content, message):
    path = tmp_path / "bad.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"bad.pt .*{message}"):
        next(fit(Recipe(**QUICK), data=small, checkpoint=path))
    assert path.read_bytes() == before


def test_checkpoint_of_another_recipe_names_the_difference(tmp_path, small):
    path = tmp_path / "run.pt"
    next(fit(Recipe(**QUICK), data=small, checkpoint=path))
    with pytest.raises(ValueError, match="another recipe; these fields differ: lr .checkpoint 0.01, now 0.02."):
        next(fit(Recipe(**{**QUICK, "lr": 0.02}), data=small, checkpoint=path))


def test_checkpoint_of_another_network_is_refused(tmp_path, small):
    recipe, other = Recipe(epochs=2, batch_size=16), nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    next(fit(recipe, model=network(), data=small, checkpoint=tmp_path / "run.pt"))
    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(ValueError, match="(?s)run.pt holds another network or optimizer: .*1.weight"):
        next(fit(recipe, model=other, data=small, checkpoint=tmp_path / "run.pt"))
    assert (tmp_path / "run.pt").read_bytes() == before


def test_checkpoint_is_never_half_written(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save_checkpoint(path, {"epoch": 1})
    before = path.read_bytes()

    def fail(parts, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, {"epoch": 2})
    assert path.read_bytes() == before


# recipes, command line, experiments


@pytest.mark.parametrize("field, value", [
    ("optimizer", "lion"), ("schedule", "sine"), ("precision", "float8"), ("epochs", 0), ("lr", -1.0), ("momentum", 1.0),
    ("label_smoothing", -0.1), ("clip", -1.0), ("batch_size", 0), ("lr", float("nan")),
    ("epochs", True), ("batch_size", 2.0), ("lr", "0.1"),
])
def test_bad_recipe_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        Recipe(**{field: value})


def test_recipe_survives_json():
    recipe = Recipe(model_args={"dropout": 0.0}, milestones=(0.3, 0.6))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    with pytest.raises(ValueError, match="a recipe has no 'epoch'"):
        Recipe.from_dict({"epoch": 3})


def test_command_line(capsys, folder):
    main(["alexnet_cifar", "--data", f"folder:{folder}", "--epochs", "1", "--batch-size", "32", "--model-args", '{"dropout": 0.0}'])
    assert "train_loss" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="unknown model 'alexnt'; did you mean"):
        main(["alexnt", "--epochs", "1"])


PLAN = """
description = "two seeds and their mean"
[defaults]
model = "alexnet_cifar"
data = "shapes"
epochs = 1
batch_size = 32
train_images = 64
[runs."seed 0"]
[runs."seed 1"]
seed = 1
[ensembles."both"]
members = ["seed 0", "seed 1"]
"""


def test_experiment_is_recorded_once(tmp_path, monkeypatch, small):
    monkeypatch.setattr(experiments, "load_data", lambda recipe: small)
    plan = tmp_path / "experiments" / "pair.toml"
    plan.parent.mkdir()
    plan.write_text(PLAN)
    target = experiments.run_experiment(plan, work=tmp_path / "runs", log=lambda text: None)
    record = json.loads(target.read_text())
    assert target == tmp_path / "results" / "pair.json"
    assert set(record["runs"]) == {"seed 0", "seed 1"} and record["runs"]["seed 0"]["data"] == "shapes"
    assert record["runs"]["seed 1"]["recipe"]["seed"] == 1 and len(record["ensembles"]["both"]["accuracy"]) == 2
    assert {"device", "name", "versions"} <= set(record["runs"]["seed 0"]["hardware"])

    before = target.read_text()
    assert experiments.run_experiment(plan, work=tmp_path / "elsewhere", log=lambda text: None) == target
    assert target.read_text() == before and not (tmp_path / "elsewhere").exists()
    plan.write_text(PLAN.replace("epochs = 1", "epochs = 2"))
    with pytest.raises(ValueError, match="holds run 'seed 0' with another recipe"):
        experiments.run_experiment(plan, work=tmp_path / "runs", log=lambda text: None)


def test_experiment_in_parts(tmp_path, monkeypatch, small):
    monkeypatch.setattr(experiments, "load_data", lambda recipe: small)
    plan = tmp_path / "experiments" / "pair.toml"
    plan.parent.mkdir()
    plan.write_text(PLAN)

    def run(*names: str) -> dict:
        target = experiments.run_experiment(plan, runs=names, work=tmp_path / "runs", log=lambda text: None)
        return json.loads(target.read_text())

    assert set(run("seed 1")["runs"]) == {"seed 1"}
    parts = run("seed 0")
    assert set(parts["runs"]) == {"seed 0", "seed 1"} and not parts["ensembles"]
    assert len(run()["ensembles"]["both"]["accuracy"]) == 2
    with pytest.raises(ValueError, match="no run 'seed 2'; its runs are 'seed 0', 'seed 1'"):
        run("seed 2")


@pytest.mark.parametrize("text, message", [
    ("", "there are no runs"), ("[runs.a]\nlearning_rate = 1", "a recipe has no 'learning_rate'"), ("[run.a]", "found run"),
    ("[runs.a]\n[ensembles.b]\nmembers = ['c']", "names runs that are not there: c"),
])
def test_bad_plan_is_named(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        experiments.read_experiment(tmp_path / "plan.toml")


# what a checkpoint knows


def test_checkpoint_can_name_what_its_network_sees(tmp_path, small):
    next(fit(Recipe(**QUICK), data=small, checkpoint=tmp_path / "run.pt"))
    known = load_checkpoint(tmp_path / "run.pt")["classifier"]
    mean, std = small[0].statistics()
    assert known["classes"] == list(small[0].classes) and known["image_size"] == 32 and known["library"]
    assert known["mean"] == mean.tolist() and known["std"] == std.tolist()
