"""Training at scale: parts of a batch, several processes, every recipe, large image sets, speed of a network in use."""

import json
import math
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from zoo import shallow, smallest_of_each_kind

from cnnlib import create_model, data, list_models
from cnnlib.data import FileBatches
from cnnlib.registry import find_variant
from cnnlib.train import RECIPES, Recipe, best_path, fit, load_checkpoint, measure_inference, named
from cnnlib.train.__main__ import main
from cnnlib.train.optimization import Average, Schedule, mix

SMALL = [name for name in list_models() if find_variant(name).input_size[1] == 32]
QUICK = [name for name in smallest_of_each_kind(SMALL) if not find_variant(name).name.startswith("convnext_step")]


@pytest.fixture(scope="module")
def small():
    return data.shapes(64, 20)


def network(classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(8 * 15 * 15, classes))


def trained(recipe, small, **options):
    model = network()
    rows = [{key: value for key, value in row.items() if key != "seconds"}
            for row in fit(recipe, model=model, data=small, **options)]
    return rows, model.state_dict()


def assert_same_run(a, b):
    for row, other in zip(a[0], b[0], strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    for name in a[1]:
        torch.testing.assert_close(a[1][name], b[1][name], atol=1e-5, rtol=1e-4)


# every recipe and every network


def one_step(recipe, model, small, **changes):
    recipe = named(recipe, model=model, data="shapes", epochs=1, batch_size=4, train_images=4, warmup_epochs=0.0,
                   compile=False, seed=3)  # compiling takes a minute; a step of warm-up has size 0
    torch.manual_seed(0)
    network = create_model(model, in_channels=3, **changes, **({} if find_variant(model).config.get("num_classes") == 10 else {"num_classes": 10}))
    before = [parameter.clone() for parameter in network.parameters()]
    [row] = fit(recipe, model=network, data=(small[0], small[1].first(4)))
    assert math.isfinite(row["train_loss"])
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters()))
    if sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) < 50:
        assert math.isfinite(row["test_loss"])  # deeper ones can overflow: moving averages have seen one batch of four


@pytest.mark.parametrize("model", QUICK)
def test_modern_recipe_trains_a_step(model, small):
    one_step("modern", model, small, **shallow(model))


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", ["resnet20", "squeezenet_cifar"])
def test_every_recipe_trains_a_step(recipe, model, small):
    one_step(recipe, model, small)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("model", SMALL)
def test_every_recipe_trains_a_step_on_every_network(recipe, model, small):
    one_step(recipe, model, small)


def test_unknown_recipe_is_named():
    with pytest.raises(ValueError, match="unknown recipe 'modren'; choose one of 'alexnet'"):
        named("modren")
    with pytest.raises(ValueError, match="a recipe has no 'learning_rate'"):
        named("modern", learning_rate=1.0)


def test_arguments_of_a_recipes_own_model_do_not_reach_another():
    own = RECIPES["speedrun_cpu"]
    assert named("speedrun_cpu").model_args == named("speedrun_cpu", model=own["model"]).model_args == own["model_args"]
    assert named("speedrun_cpu", model="vgg11_cifar").model_args == {}
    assert named("speedrun_cpu", model_args={}).model_args == {}


def test_command_line_starts_from_a_recipe(capsys, photographs):
    main(["alexnet_cifar", "--recipe", "modern", "--data", f"folder:{photographs}", "--epochs", "1", "--batch-size", "4",
          "--warmup-epochs", "0"])
    assert "train_loss" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "peak step size" in shown and "torchrun" in shown and "(default: 0.5 0.75)" in shown


# accumulation, precision, mixing, averaging, schedules


@pytest.mark.parametrize("accumulate", [2, 3])
def test_accumulation_equals_the_large_batch(small, accumulate):
    whole = Recipe(epochs=2, batch_size=32, lr=0.05, clip=1.0, label_smoothing=0.1, mixup=0.4)
    in_parts = Recipe.from_dict({**whole.to_dict(), "accumulate": accumulate})
    assert_same_run(trained(in_parts, small), trained(whole, small))


@pytest.mark.parametrize("changes", [
    {"precision": "float16"}, {"mixup": 0.2}, {"cutmix": 1.0}, {"average": 0.9}, {"optimizer": "rmsprop", "lr": 1e-3},
    {"fused": False}, {"test_training": True}, {"schedule": "exponential", "gamma": 0.9}, {"schedule": "linear"},
], ids=lambda changes: next(iter(changes)))
def test_every_switch_trains(small, changes):
    first, last = trained(Recipe(**{"epochs": 2, "batch_size": 16, "lr": 0.01, **changes}), small)[0]
    assert last["train_loss"] < first["train_loss"]
    assert ("trainset_accuracy" in last) == ("test_training" in changes)


def test_float16_scale_and_average_are_kept(small, tmp_path):
    recipe = Recipe(epochs=3, batch_size=16, lr=0.02, precision="float16", average=0.9, mixup=0.2, cutmix=1.0)
    whole = trained(recipe, small, checkpoint=tmp_path / "whole.pt")
    cut = fit(recipe, model=network(), data=small, checkpoint=tmp_path / "cut.pt")
    next(cut)
    cut.close()
    resumed = trained(recipe, small, checkpoint=tmp_path / "cut.pt")
    assert resumed[0] == whole[0] and all(torch.equal(a, b) for a, b in zip(resumed[1].values(), whole[1].values()))
    state = load_checkpoint(tmp_path / "cut.pt")
    assert state["scaler"]["scale"] > 1 and not torch.equal(state["average"]["0.weight"], state["model"]["0.weight"])


def test_best_is_kept_beside_last(small, tmp_path):
    rows, _ = trained(Recipe(epochs=6, batch_size=16, lr=0.02), small, checkpoint=tmp_path / "run.pt")
    best = load_checkpoint(best_path(tmp_path / "run.pt"))
    first_best = max(rows, key=lambda row: row["test_accuracy"])
    assert best["epoch"] == first_best["epoch"] and load_checkpoint(tmp_path / "run.pt")["epoch"] == 6


def test_foreign_best_is_refused_and_kept(small, tmp_path):
    best_path(tmp_path / "run.pt").write_bytes(b"precious")
    with pytest.raises(ValueError, match="run.best.pt is damaged"):
        next(fit(Recipe(epochs=1), model=network(), data=small, checkpoint=tmp_path / "run.pt"))
    assert best_path(tmp_path / "run.pt").read_bytes() == b"precious"


def test_mixing_keeps_shares_and_repeats():
    images, labels = torch.rand(7, 3, 8, 8), torch.arange(7)
    for recipe in (Recipe(mixup=1.0), Recipe(cutmix=1.0)):
        mixed, targets = mix(images, labels, recipe, epoch=1, step=2)
        (first, share), (second, rest) = targets
        assert share + rest == pytest.approx(1) and torch.equal(first, labels) and second.tolist() == [1, 0, 3, 2, 5, 4, 6]
        torch.testing.assert_close(mixed.mean(), images.mean(), atol=0.05, rtol=0)
        assert torch.equal(mixed, mix(images, labels, recipe, epoch=1, step=2)[0])
        torch.testing.assert_close(mixed[:2], mix(images[:2], labels[:2], recipe, epoch=1, step=2)[0])
    from_other = (mixed[0] == images[1]).all(0).float().mean().item()  # cutmix: the share is the share of pixels
    assert from_other == pytest.approx(rest)


def test_average_follows_its_definition():
    model = nn.BatchNorm1d(1)
    average = Average(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.num_batches_tracked.fill_(5)
    average.update(1000)
    assert average.model.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 2) and average.model.num_batches_tracked == 5
    average.update(0)  # early, it keeps a tenth
    assert average.model.weight.item() == pytest.approx(0.1 * 1.1 + 0.9 * 2)


def test_schedules_go_down():
    linear = Schedule(Recipe(epochs=10, lr=1.0, schedule="linear", warmup_epochs=2))
    assert [round(linear.lr(time), 6) for time in (0, 1, 2, 6, 10)] == [0, 0.5, 1, 0.5, 0]
    steps = Schedule(Recipe(epochs=10, lr=1.0, schedule="exponential", gamma=0.5, decay_epochs=4))
    assert [steps.lr(time) for time in (0, 3.9, 4, 8)] == [1, 1, 0.5, 0.25]


@pytest.mark.parametrize("field, value", [("accumulate", 200), ("average", 1.0), ("resize", (256,)), ("mixup", -1.0)])
def test_bad_recipe_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=f"{field}={value!r}".replace("(", "[(]").replace(")", "[)]")):
        Recipe(**{field: value})


def test_recipe_of_the_first_version_is_the_same():
    fields = {"model": "alexnet_cifar", "epochs": 12, "lr": 0.05, "milestones": [0.5, 0.75]}
    assert Recipe.from_dict(fields).differences(fields) == []
    assert Recipe.from_dict({**fields, "mixup": 0.2}).differences(fields) == ["mixup"]


# several processes

WORKER = """
import json, os, sys, torch
from torch import nn
from cnnlib import data
from cnnlib.train import Recipe, distributed, fit
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(8 * 15 * 15, 10))
with distributed.joined():
    for row in fit(Recipe.from_dict(json.loads(sys.argv[1])), model=model, data=data.shapes(64, 20), checkpoint=sys.argv[2]):
        if row["epoch"] == 2 and distributed.rank() == 1:
            os.kill(os.getpid(), 9)
"""


def test_two_processes_equal_one_and_a_dead_worker_leaves_a_checkpoint(small, tmp_path):
    recipe = Recipe(epochs=4, batch_size=16, accumulate=2, lr=0.02, crop=2, flip=True, cutout=4, mixup=0.2, average=0.9)
    script, path = tmp_path / "worker.py", tmp_path / "run.pt"
    script.write_text(WORKER)
    started = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
         json.dumps(recipe.to_dict()), str(path)], capture_output=True, text=True, timeout=300)
    assert started.returncode != 0, "worker 1 killed itself"
    whole = trained(recipe, small, checkpoint=tmp_path / "whole.pt")
    assert load_checkpoint(path)["epoch"] >= 2, started.stderr
    for row, other in zip(load_checkpoint(path)["rows"], whole[0]):
        assert {key: row[key] for key in other} == pytest.approx(other, rel=1e-4)
    assert_same_run(trained(recipe, small, checkpoint=path), whole)  # the rest goes on


# large image sets


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    draw = torch.Generator().manual_seed(0)
    for part, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = torch.randint(256, (40, 60, 3), generator=draw, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(root / part / name / f"{i}.png")
    return root


@pytest.mark.parametrize("changes", [{"min_area": 0.3}, {"resize": (32, 40), "jitter": 0.2, "randaugment": 9, "erase": 0.5},
                                     {"randaugment": 27, "randaugment_std": 1.5, "erase": 0.5, "erase_noise": True, "bicubic": True}],
                         ids=["area", "scale", "noise"])
def test_large_sets_train(photographs, monkeypatch, changes):
    monkeypatch.setenv("CNNLIB_WORKERS", "0")
    recipe = Recipe(data=f"files:{photographs}", image_size=32, epochs=1, batch_size=4, flip=True, **changes)
    [row] = fit(recipe, model=network(classes=2))
    assert row["test_accuracy"] * 6 / 100 == pytest.approx(round(row["test_accuracy"] * 6 / 100), abs=1e-4)


def test_changes_of_an_image_do_not_depend_on_the_workers(photographs):
    files, _ = data.load(f"files:{photographs}")
    mean, std = files.statistics()

    def epoch(workers, number, part=(0, 1)):
        batches = FileBatches(files, 4, device=torch.device("cpu"), transform=files.augmentation(32), mean=mean, std=std,
                              shuffle=True, part=part)
        batches.workers, batches.epoch = workers, number
        return torch.cat([images for images, _ in batches])

    state = torch.get_rng_state()
    alone = epoch(0, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alone, epoch(2, 3)) and not torch.equal(alone, epoch(0, 4))
    assert torch.equal(torch.cat([epoch(0, 3, (k, 2)).view(3, 2, 3, 32, 32) for k in (0, 1)], dim=1).flatten(0, 1), alone)


def test_large_set_errors_are_named(photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no images below .*: it has no folders"):
        data.load(f"files:{tmp_path}")
    with pytest.raises(ValueError, match="resize=.16, 20.: images must not become smaller than the crop of 32"):
        data.ImageFiles.augmentation(32, resize=(16, 20))


# use


def test_inference_is_measured():
    model = create_model("resnet20")
    one, many = (measure_inference(model, (3, 32, 32), batch_size=n, warmup=1, repeats=4) for n in (1, 8))
    assert model.training and one.quartiles[0] <= one.milliseconds <= one.quartiles[1]
    assert many.memory == 8 * one.memory > 0 and one.weights == many.weights
    assert one.weights == sum(tensor.nbytes for tensor in model.state_dict().values())
    assert one.images_per_second == pytest.approx(1000 / one.milliseconds)
    with pytest.raises(ValueError, match="precision='int8'"):
        measure_inference(model, precision="int8")


# progress


def test_progress_shows_a_bar_and_leaves_nothing(small, monkeypatch):
    import IPython.display

    from cnnlib import notebook

    class Screen:
        seen = []

        def update(self, html):
            self.seen.append(html.data)

    cleared = []
    monkeypatch.setattr(IPython.display, "display", lambda *_, **__: Screen())
    monkeypatch.setattr(IPython.display, "clear_output", lambda: cleared.append(True))
    monkeypatch.setattr(notebook.time, "perf_counter", iter(range(1000)).__next__)
    recipe = Recipe(epochs=2, batch_size=16)
    assert len(notebook.progress(recipe, model=network(), data=small)) == 2 and not Screen.seen  # nobody watches
    monkeypatch.setattr(notebook, "_is_watched", lambda: True)
    rows = notebook.progress(recipe, model=network(), data=small)
    assert [row["epoch"] for row in rows] == [1, 2] and cleared == [True]
    assert "epoch 1 of 2: loss" in Screen.seen[0] and "images/s" in Screen.seen[0] and "<svg" in Screen.seen[-1]


def test_tensorboard_logs_or_says_what_is_missing(tmp_path, small):
    from cnnlib.train.progress import tensorboard

    rows = fit(Recipe(epochs=1, batch_size=16), model=network(), data=small)
    try:
        import tensorboard as _  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match="need the package 'tensorboard'"):
            list(tensorboard(rows, tmp_path))
    else:
        assert len(list(tensorboard(rows, tmp_path))) == 1 and list(tmp_path.glob("events*"))
