"""Precision by hardware, and nothing made on the CPU that meets a tensor elsewhere."""

import copy
import math

import pytest
import torch
from torch import nn

from cnnlib import create_model, data, list_models, running
from cnnlib.registry import find_variant
from cnnlib.train import Recipe, evaluate, fit, load_checkpoint, measure_inference, predict
from cnnlib.train.loop import make_batches
from cnnlib.train.optimization import Average, mix
from other_device import OtherDevice
from zoo import shallow, smallest_of_each_kind

SMALL = [name for name in list_models() if find_variant(name).input_size[1] == 32]
KINDS = [name for name in smallest_of_each_kind(SMALL) if not find_variant(name).name.startswith("convnext_step")]
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    return data.shapes(16, 10)


# the other device


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_trains_and_predicts_there(name, small):
    recipe = Recipe(model=name, epochs=1, batch_size=4, train_images=4, lr=1e-3, crop=2, flip=True, cutout=4, mixup=0.5, cutmix=0.5,
                    accumulate=2, average=0.9, clip=1.0, label_smoothing=0.1)
    with OtherDevice() as other:
        model = create_model(name, in_channels=3, **shallow(name))
        [row] = fit(recipe, model=model, data=(small[0], small[1].first(2)), device=other.device)
        assert other.has(model) and math.isfinite(row["train_loss"])


@pytest.mark.parametrize("changes", [
    {"optimizer": "adamw"}, {"optimizer": "rmsprop"}, {"precision": "bfloat16"}, {"precision": "float16"}, {"precision": "auto"},
    {"test_training": True}, {"schedule": "plateau"}, {"fused": False}, {"nesterov": True},
], ids=str)
def test_every_switch_trains_there_and_goes_on_there(small, tmp_path, changes):
    recipe = Recipe.from_dict({"epochs": 2, "batch_size": 8, "lr": 1e-3, "average": 0.9, **changes})
    with OtherDevice() as other:
        model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 10))
        run = fit(recipe, model=model, data=small, device=other.device, checkpoint=tmp_path / "run.pt")
        next(run)
        run.close()
        rows = list(fit(recipe, model=model, data=small, device=other.device, checkpoint=tmp_path / "run.pt"))
        assert len(rows) == 2 and other.has(model)
    assert load_checkpoint(tmp_path / "run.pt")["model"]["0.weight"].device == CPU


def test_helpers_there(small):
    recipe = Recipe(mixup=0.5, cutmix=0.5, crop=2, cutout=4, batch_size=8)
    with OtherDevice() as other:
        model = create_model("resnet20").to(other.device, memory_format=torch.channels_last)
        batches, test_batches, _ = make_batches(recipe, small, other.device)
        for step, (images, labels) in enumerate(batches):
            mixed, targets = mix(images, labels, recipe, epoch=0, step=step)
            assert other.has([mixed, *(classes for classes, _ in targets)])
        logits, labels = predict(model, test_batches)
        assert other.has([logits, labels]) and evaluate(model, test_batches)[1] <= 100
        average = Average(model, 0.9)
        average.update(3)
        assert other.has(average.model)
        assert measure_inference(model, (3, 32, 32), warmup=1, repeats=1).memory > 0


def test_best_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert running.best_device() == CPU
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert running.best_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert running.best_device() == GPU


# precision


@pytest.mark.parametrize("device, real, capability, used, why", [
    (CPU, True, None, "bfloat16", "has instructions"), (CPU, False, None, "float32", "no fast 16 bits"),
    (GPU, True, (8, 0), "bfloat16", "has instructions"), (GPU, False, (7, 5), "float16", "scaled loss"),
    (GPU, False, (6, 1), "float32", "no fast 16 bits"), (torch.device("mps"), False, None, "float32", "no fast 16 bits"),
], ids=["cpu", "old cpu", "A100", "T4", "P4", "apple"])
def test_precision_by_hardware(monkeypatch, device, real, capability, used, why):
    if device.type != "mps":
        monkeypatch.setattr(running, "has_bfloat16", lambda device: real)
    monkeypatch.setattr(running, "name_of", lambda device: "Such A Device")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    precision, line = running.choose_precision("auto", device)
    assert precision == used and line.startswith(used) and "Such A Device" in line and why in line
    assert running.choose_precision("bfloat16", device)[0] == "bfloat16"
    assert ("emulates" in running.choose_precision("bfloat16", device)[1]) != real
    with pytest.raises(ValueError, match="precision='int8'; choose one of 'auto', 'float32'"):
        running.choose_precision("int8", device)


def test_what_a_processor_or_a_gpu_has_is_asked_rightly(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: asked.setdefault("all", including_emulation))
    assert not running.has_bfloat16(GPU) and asked == {"all": False}
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)
    assert not running.has_bfloat16(CPU)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert running.has_bfloat16(CPU)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True}, raising=False)
    assert running.has_bfloat16(CPU)


@pytest.mark.parametrize("real, used", [(True, "bfloat16"), (False, "float32")])
def test_what_was_used_is_said_and_recorded(monkeypatch, small, tmp_path, real, used):
    monkeypatch.setattr(running, "has_bfloat16", lambda device: real)
    lines, seen = [], []

    class Watch(nn.Flatten):
        def forward(self, x):
            seen.append(x.dtype)
            return super().forward(x)

    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), Watch(), nn.Linear(256, 10))
    list(fit(Recipe(epochs=1, batch_size=8, precision="auto"), model=model, data=small, device="cpu", log=lines.append,
             checkpoint=tmp_path / "run.pt"))
    state = load_checkpoint(tmp_path / "run.pt")
    assert lines == [running.choose_precision("auto", CPU)[1]] and lines[0].startswith(used)
    assert state["precision"] == used and state["recipe"]["precision"] == "auto" and state["history"][0]["precision"] == used
    assert set(seen) == {running.PRECISIONS[used] or torch.float32}, "in training and in evaluation"


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(), nn.Linear(256, 10))


def spoil_loss(monkeypatch, at, value):
    """Let the loss of some steps be `value`, and its gradients no numbers."""
    from cnnlib.train import loop

    right, count = loop.total_loss, iter(range(10**6))
    monkeypatch.setattr(loop, "total_loss", lambda *given: right(*given) * (value if next(count) in at else 1.0))


def test_an_infinite_loss_under_scaling_skips_its_step(monkeypatch, small):
    recipe = Recipe(epochs=1, batch_size=4, precision="float16", lr=0.01, schedule="constant")
    model, states = network(), []
    spoil_loss(monkeypatch, {1}, math.inf)

    def watch(batches, row):
        for batch in batches:
            states.append(copy.deepcopy(model.state_dict()))
            yield batch

    [row] = fit(recipe, model=model, data=small, progress=watch)
    assert math.isfinite(row["train_loss"]) and 0 < row["train_loss"] < 5
    same = [all(torch.equal(a, b) for a, b in zip(one.values(), two.values())) for one, two in zip(states, states[1:])]
    assert same == [False, True, False], "the second step, and no other, changes nothing"


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("first, seen", [(0, 1), (1, 2), (2, 4)])
def test_a_loss_that_is_no_number_stops_within_the_first_steps(monkeypatch, small, precision, first, seen):
    spoil_loss(monkeypatch, {first}, math.nan)
    with pytest.raises(ValueError, match=f"not a number in epoch 1, seen after step {seen}: lr=0.05"):
        list(fit(Recipe(epochs=1, batch_size=2, precision=precision), model=network(), data=small))


def test_a_spoiled_run_is_not_saved(monkeypatch, small, tmp_path):
    spoil_loss(monkeypatch, {5}, math.nan)
    with pytest.raises(ValueError, match="not a number in epoch 2"):
        list(fit(Recipe(epochs=3, batch_size=4), model=network(), data=small, checkpoint=tmp_path / "run.pt"))
    state = load_checkpoint(tmp_path / "run.pt")
    assert state["epoch"] == 1 and all(tensor.isfinite().all() for tensor in state["model"].values())


def test_only_infinite_losses_stop_too(monkeypatch, small):
    spoil_loss(monkeypatch, set(range(1000)), math.inf)
    with pytest.raises(ValueError, match="not a number in epoch 1"):
        list(fit(Recipe(epochs=50, batch_size=4, precision="float16"), model=network(), data=small))


# evaluation


def test_evaluation_leaves_every_mode_and_counts_every_image_once(small):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(256, 10))
    model[1].eval()
    batches = [(torch.randn(n, 3, 32, 32), torch.randint(10, (n,))) for n in (5, 0, 2)]
    logits, labels = predict(model, batches)
    assert [module.training for module in model] == [True, False, True, True, True] and model.training
    assert torch.equal(labels, torch.cat([labels for _, labels in batches])) and logits.dtype == torch.float32
    model.eval()
    with torch.no_grad():
        by_hand = torch.cat([model(images) for images, labels in batches if len(labels)])
    torch.testing.assert_close(logits, by_hand)
    loss, accuracy = evaluate(model.train(), iter(batches))
    assert loss == pytest.approx(nn.functional.cross_entropy(by_hand, labels).item(), rel=1e-5)
    assert accuracy == pytest.approx(100 * (by_hand.argmax(1) == labels).float().mean().item())
    with pytest.raises(ValueError, match="no images in these batches"):
        predict(model, [])
    with pytest.raises(ZeroDivisionError):
        predict(nn.Sequential(Broken()), batches)


class Broken(nn.Module):
    def forward(self, x):
        return 1 / 0


def test_predictions_in_half_precision(small):
    batches = make_batches(Recipe(), small, CPU)[1]
    model = network()
    whole, half = predict(model, batches)[0], predict(model, batches, "bfloat16")[0]
    assert half.dtype == torch.float32 and not torch.equal(whole, half)
    torch.testing.assert_close(whole, half, atol=0.05, rtol=0.05)


def test_layout_follows_the_network():
    model = nn.Conv2d(3, 4, 3)
    assert running.layout_of(model) == torch.contiguous_format
    assert running.layout_of(model.to(memory_format=torch.channels_last)) == torch.channels_last
    assert running.layout_of(nn.Linear(2, 2)) == torch.contiguous_format


@pytest.mark.parametrize("shape, decays", [((8,), False), ((8, 4), True), ((8, 4, 3, 3), True), ((8, 1, 1), False), ((), False),
                                           ((1, 8), True), ((1, 8, 1, 1), True), ((8, 1, 3, 3), True)])
def test_what_decays(shape, decays):
    assert running.decays(torch.ones(shape)) == decays


def test_layer_scale_and_norms_do_not_decay():
    model = create_model("convnext_cifar", layer_scale=1e-6)
    model.stem.requires_grad_(False)
    decayed, free = running.decay_groups(model, 0.05)
    assert decayed["weight_decay"] == 0.05 and free["weight_decay"] == 0
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = [names[id(p)] for p in free["params"] if names[id(p)].endswith(".scale")]
    assert len(scales) == sum(name.endswith(".scale") for name in names.values()) > 0
    assert all(p.dim() > 1 and not names[id(p)].endswith(".scale") for p in decayed["params"])
    assert len(decayed["params"]) + len(free["params"]) == sum(p.requires_grad for p in model.parameters())
