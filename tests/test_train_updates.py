"""Every switch of a recipe by its effect on updates that are computed here by hand, with other code."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cnnlib import data
from cnnlib.train import Recipe, fit
from cnnlib.train.experiments import run_record
from cnnlib.train.loop import make_batches, parts_of, train_epoch
from cnnlib.train.optimization import Average, Schedule
from cnnlib.train.run import Run

CPU = torch.device("cpu")
PLAIN = dict(epochs=2, batch_size=6, lr=0.1, momentum=0.0, weight_decay=0.0, schedule="constant", channels_last=False)


class Fixed:
    """Batches that the test knows."""

    def __init__(self, batches, epoch=0):
        self.batches, self.epoch = batches, epoch

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def some_batches(count=3, images=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [(torch.randn(images, 3, 4, 4, generator=draw), torch.randint(5, (images,), generator=draw)) for _ in range(count)]


class Network(nn.Module):
    """Weights of two axes and more, biases, a norm, a scale of (C, 1, 1)."""

    def __init__(self, auxiliary=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.7))
        self.head, self.auxiliary = nn.Linear(64, 5), nn.ModuleList(nn.Linear(64, 5) for _ in range(2 * auxiliary))

    def forward(self, x):
        x = (self.scale * torch.tanh(self.norm(self.conv(x)))).flatten(1)
        return (self.head(x), *(layer(x) for layer in self.auxiliary)) if self.auxiliary else self.head(x)


DECAYED = {"conv.weight", "head.weight"}


def trained(batches, epoch=0, model=None, **changes):
    model = model or Network()
    run = Run(Recipe(**{**PLAIN, **changes}), model, CPU)
    row = train_epoch(run, Fixed(batches, epoch))
    return dict(model.named_parameters()), row, run


def cross_entropy(logits, labels, smoothing=0.0):
    """By its definition: of each image minus the target's share of every class times the logarithm of its probability."""
    classes = logits.shape[1]
    target = torch.full_like(logits, smoothing / classes)
    target[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(target * (logits - logits.exp().sum(1, keepdim=True).log())).sum() / len(labels)


def by_hand(batches, rule, loss_of=None, model=None):
    """Parameters after one update a batch; `rule(name, weight, gradients, memory, step)` gives the new weight."""
    model, memory = model or Network(), {}
    parameters, losses = dict(model.named_parameters()), []
    for step, (images, labels) in enumerate(batches, 1):
        loss = loss_of(model, images, labels, step - 1) if loss_of else cross_entropy(model(images), labels)
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values()))))
        losses.append(loss.item())
        with torch.no_grad():
            new = {name: rule(name, weight, gradients, memory.setdefault(name, {}), step) for name, weight in parameters.items()}
            for name, weight in parameters.items():
                weight.copy_(new[name])
    return parameters, losses


def assert_equal(ours, theirs, tolerance=1e-5):
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def sgd(lr=0.1, momentum=0.0, nesterov=False, decay=0.0):
    def rule(name, weight, gradients, memory, step):
        gradient = gradients[name] + decay * weight * (name in DECAYED)
        memory["speed"] = momentum * memory["speed"] + gradient if memory else gradient.clone()
        return weight - lr * (gradient + momentum * memory["speed"] if nesterov else memory["speed"])

    return rule


def adamw(lr, decay):
    def rule(name, weight, gradients, memory, step):
        gradient = gradients[name]
        memory["mean"] = 0.9 * memory.get("mean", 0) + 0.1 * gradient
        memory["square"] = 0.999 * memory.get("square", 0) + 0.001 * gradient**2
        mean, square = memory["mean"] / (1 - 0.9**step), memory["square"] / (1 - 0.999**step)
        return weight * (1 - lr * decay * (name in DECAYED)) - lr * mean / (square.sqrt() + 1e-8)

    return rule


def rmsprop(lr, momentum, decay):
    def rule(name, weight, gradients, memory, step):
        gradient = gradients[name] + decay * weight * (name in DECAYED)
        memory["square"] = 0.9 * memory.get("square", 0) + 0.1 * gradient**2
        memory["speed"] = momentum * memory.get("speed", 0) + gradient / (memory["square"].sqrt() + 1e-3)
        return weight - lr * memory["speed"]

    return rule


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("changes, rule", [
    ({}, sgd()), ({"lr": 0.03}, sgd(lr=0.03)), ({"momentum": 0.9}, sgd(momentum=0.9)), ({"weight_decay": 0.3}, sgd(decay=0.3)),
    ({"momentum": 0.8, "nesterov": True, "weight_decay": 0.2}, sgd(momentum=0.8, nesterov=True, decay=0.2)),
    ({"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.5}, adamw(0.01, 0.5)),
    ({"optimizer": "rmsprop", "lr": 0.01, "momentum": 0.7, "weight_decay": 0.3}, rmsprop(0.01, 0.7, 0.3)),
], ids=["plain", "lr", "momentum", "decay", "nesterov", "adamw", "rmsprop"])
def test_optimizers(changes, rule, fused):
    batches = some_batches()
    assert_equal(trained(batches, fused=fused, **changes)[0], by_hand(batches, rule)[0], 2e-5)


class Skipping(nn.Module):
    """Uses its second layer from the second step on."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.count = nn.Linear(48, 5), nn.Linear(48, 5), 0

    def forward(self, x):
        self.count += 1
        return self.first(x.flatten(1)) + (self.second(x.flatten(1)) if self.count > 1 else 0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_a_layer_that_is_used_late(optimizer):
    batches = some_batches()
    fused, plain = (trained(batches, model=Skipping(), optimizer=optimizer, lr=0.01, momentum=0.9, fused=fused)[0]
                    for fused in (True, False))
    assert_equal(fused, plain)
    assert not torch.equal(fused["second.weight"], Skipping().second.weight)


def test_clipping_by_the_norm_of_all_gradients_together():
    limit, norms = 0.3, []

    def rule(name, weight, gradients, memory, step):
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients.values()))
        norms.append(norm)
        return weight - 0.1 * gradients[name] * min(1.0, limit / norm)

    batches = some_batches()
    assert_equal(trained(batches, clip=limit)[0], by_hand(batches, rule)[0])
    assert min(norms) > limit, "the limit was felt"
    assert_equal(trained(batches, clip=1e3)[0], by_hand(batches, sgd())[0])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_clipping_and_scaling_of_float16_agree(accumulate):
    batches = some_batches()
    model = Network()
    run = Run(Recipe(**{**PLAIN, "clip": 0.3, "accumulate": accumulate}), model, CPU)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    train_epoch(run, Fixed(batches))
    assert_equal(dict(model.named_parameters()), trained(batches, clip=0.3)[0])


def test_label_smoothing():
    batches = some_batches()
    smooth = by_hand(batches, sgd(), lambda model, images, labels, step: cross_entropy(model(images), labels, 0.2))
    ours, row, _ = trained(batches, label_smoothing=0.2)
    assert_equal(ours, smooth[0])
    assert row["train_loss"] == pytest.approx(np.mean(smooth[1]), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_weight_of_auxiliary_classifiers(weight):
    def loss_of(model, images, labels, step):
        first, *others = (cross_entropy(logits, labels) for logits in model(images))
        return first + weight * sum(others)

    batches = some_batches()
    ours, row, _ = trained(batches, model=Network(auxiliary=True), aux_weight=weight)
    theirs, losses = by_hand(batches, sgd(), loss_of, Network(auxiliary=True))
    assert_equal(ours, theirs)
    assert row["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4, 6])
def test_accumulation_is_the_gradient_of_the_large_batch(accumulate):
    batches = some_batches(images=6)  # in four parts: of 1, 2, 1, 2 images
    parted, row, _ = trained(batches, accumulate=accumulate, momentum=0.9)
    whole, losses = by_hand(batches, sgd(momentum=0.9))
    assert_equal(parted, whole)
    assert row["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_figures_of_an_epoch():
    batches = [*some_batches(2), *some_batches(1, images=3, seed=5)]
    right, model = 0, Network()
    rule, losses = sgd(), []
    for step, batch in enumerate(batches):
        right += (model(batch[0]).argmax(1) == batch[1]).sum().item()
        losses += by_hand([batch], rule, model=model)[1]
    _, row, run = trained(batches)
    assert row["train_accuracy"] == pytest.approx(100 * right / 15)
    assert row["train_loss"] == pytest.approx((6 * losses[0] + 6 * losses[1] + 3 * losses[2]) / 15, rel=1e-5)
    assert row["lr"] == 0.1 and row["seconds"] > 0 and run.step == 3


# mixing


def drawn(recipe, epoch, step):
    """Kind and share as the recipe's words and NumPy's generator give them."""
    generator = np.random.default_rng([recipe.seed, epoch, step])
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(recipe, kind)]
    kind = kinds[generator.integers(len(kinds))]
    return kind, generator.beta(getattr(recipe, kind), getattr(recipe, kind)), generator


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0, "seed": 3}], ids=str)
def test_mixing_of_images_and_targets(changes):
    recipe, epoch, kinds = Recipe(**{**PLAIN, **changes}), 1, set()

    def loss_of(model, images, labels, step):
        kind, share, generator = drawn(recipe, epoch, step)
        kinds.add(kind)
        partner = [1, 0, 3, 2, 5, 4]
        mixed = images.clone()
        if kind == "mixup":
            mixed = share * images + (1 - share) * images[partner]
        else:
            row, column = generator.integers(4), generator.integers(4)
            reach = round(4 * math.sqrt(1 - share) / 2)
            rows, columns = range(max(row - reach, 0), min(row + reach, 4)), range(max(column - reach, 0), min(column + reach, 4))
            for y in rows:
                for x in columns:
                    mixed[:, :, y, x] = images[partner][:, :, y, x]
            share = 1 - len(rows) * len(columns) / 16
        logits = model(mixed)
        return share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, labels[partner])

    batches = some_batches(6)
    assert_equal(trained(batches, epoch, **changes)[0], by_hand(batches, sgd(), loss_of)[0])
    assert kinds == {key for key in changes if key != "seed"}


# rates


def rates(recipe, steps):
    """The step size of every step of a run, as the weights felt it: each step's change divided by its gradient."""
    model = nn.Linear(1, 1, bias=False)
    run = Run(recipe, model, CPU)
    felt = []
    for epoch in range(recipe.epochs):

        class Watched(Fixed):
            def __iter__(self):
                for batch in self.batches:
                    before = model.weight.item()
                    yield batch
                    felt.append((before - model.weight.item()) / model.weight.grad.item())

        run.network = Slope(model)
        train_epoch(run, Watched([(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))] * steps, epoch))
        run.schedule.see(run_accuracy(epoch))
        run.step = 0
    return felt


class Slope(nn.Module):
    """Two logits, w and -w, so that the loss always has a slope."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        w = self.model.weight.view(1, 1)
        return torch.cat([w, -w], 1)


def run_accuracy(epoch):
    return [50, 60, 59, 58, 70, 69, 70, 68, 70][epoch % 9]


@pytest.mark.parametrize("changes, expected", [
    ({"schedule": "constant"}, lambda t: 1.0),
    ({"schedule": "cosine"}, lambda t: (1 + math.cos(math.pi * t / 8)) / 2),
    ({"schedule": "linear"}, lambda t: 1 - t / 8),
    ({"schedule": "step"}, lambda t: 1.0 if t < 4 else 0.1 if t < 6 else 0.01),
    ({"schedule": "step", "milestones": (0.25,), "gamma": 0.5}, lambda t: 1.0 if t < 2 else 0.5),
    ({"schedule": "exponential", "gamma": 0.5, "decay_epochs": 2.0}, lambda t: 0.5 ** int(t / 2)),
    ({"schedule": "cosine", "warmup_epochs": 2.0}, lambda t: t / 2 if t < 2 else (1 + math.cos(math.pi * (t - 2) / 6)) / 2),
    ({"schedule": "linear", "warmup_epochs": 1.5}, lambda t: t / 1.5 if t < 1.5 else 1 - (t - 1.5) / 6.5),
    ({"schedule": "constant", "warmup_epochs": 8.0}, lambda t: t / 8),
    ({"schedule": "plateau", "patience": 2}, lambda t: 1.0 if t < 4 else 0.1 if t < 7 else 0.01),
], ids=lambda value: str(value) if isinstance(value, dict) else "rate")
def test_rate_at_every_step(changes, expected):
    recipe = Recipe(**{**PLAIN, "epochs": 8, "lr": 1e-2, **changes})
    felt = rates(recipe, 4)
    wanted = [1e-2 * expected(step / 4) for step in range(32)]
    assert felt == pytest.approx(wanted, rel=2e-3, abs=2e-6)


def test_plateau_counts_epochs_without_a_better_one():
    schedule = Schedule(Recipe(lr=1.0, schedule="plateau", patience=3, gamma=0.5))
    told = []
    for accuracy in (10, 20, 20, 19, 18, 30, 29, 28, 27, 26, 25, 24):
        schedule.see(accuracy)
        told.append(schedule.lr(0))
    assert told == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    other = Schedule(Recipe(lr=1.0, schedule="plateau", patience=3, gamma=0.5))
    other.load_state_dict(schedule.state_dict())
    assert other.lr(0) == 0.125 and other.best == 30


# running mean of the weights


@pytest.mark.parametrize("epochs", [1, 3])
def test_mean_of_the_weights_after_every_step(tmp_path, epochs):
    small, weights, recipe = data.shapes(64, 10, image_size=16), [], Recipe(epochs=epochs, batch_size=16, lr=0.05, average=0.35)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    first = model[1].weight.detach().clone()

    def watch(batches, row):
        for batch in batches:
            yield batch
            weights.append(model[1].weight.detach().clone())

    list(fit(recipe, model=model, data=small, progress=watch, checkpoint=tmp_path / "run.pt"))
    mean = first
    for updates, weight in enumerate(weights):
        keep = min(0.35, (1 + updates) / (10 + updates))  # a tenth at first, 0.35 from the fifth on
        mean = keep * mean + (1 - keep) * weight
    state = torch.load(tmp_path / "run.pt")
    torch.testing.assert_close(state["average"]["1.weight"], mean, atol=1e-6, rtol=1e-5)
    assert len(weights) == 4 * epochs and not torch.equal(state["average"]["1.weight"], state["model"]["1.weight"])


def test_mean_of_statistics_is_kept_and_counters_are_copied():
    model = nn.BatchNorm1d(2)
    average = Average(model, 0.5)
    model.running_mean.fill_(4.0)
    model.num_batches_tracked.fill_(7)
    average.update(10**6)
    assert average.model.running_mean.tolist() == [2.0, 2.0] and average.model.num_batches_tracked == 7
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


# seeds and data


def test_seed_decides_weights_order_augmentation_and_dropout():
    small = data.shapes(64, 10)
    recipe = Recipe(model="alexnet_cifar", epochs=1, batch_size=16, train_images=32, crop=2, flip=True)

    def run(seed, disturbed=0, **changes):
        torch.manual_seed(disturbed)
        torch.rand(disturbed)
        return next(fit(Recipe.from_dict({**recipe.to_dict(), "seed": seed, **changes}), data=small))["train_loss"]

    assert run(0) == run(0, disturbed=5) != run(1)

    orders = {}
    for seed in (0, 1):
        orders[seed] = [images for images, _ in first_batches(Recipe.from_dict({**recipe.to_dict(), "seed": seed}), small)]
    assert not torch.equal(orders[0][0], orders[1][0])


def first_batches(recipe, small, epoch=0):
    batches = make_batches(recipe, small, CPU)[0]
    batches.epoch = epoch
    return list(batches)


def test_batches_are_what_the_recipe_says():
    small = data.shapes(64, 20)
    recipe = Recipe(batch_size=28, train_images=60, crop=2, flip=True)
    one, again, other = (first_batches(recipe, small, epoch) for epoch in (0, 0, 1))
    assert [len(labels) for _, labels in one] == [28, 28]
    assert all(torch.equal(a, b) for a, b in zip(one[0], again[0])) and not torch.equal(one[0][0], other[0][0])
    train, test, plain = make_batches(recipe, small, CPU)
    [(images, labels)] = list(plain)
    assert len(labels) == 60 and torch.equal(labels, small[0].labels[:60]) and sum(len(labels) for _, labels in test) == 20
    mean, std = small[0].statistics()
    by_hand = (small[0].images[:60].float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(images, by_hand, atol=1e-5, rtol=1e-5)
    [(images, _)] = list(test)
    torch.testing.assert_close(images, (small[1].images.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1), atol=1e-5, rtol=1e-5)


def test_held_out_images_are_tested_on_and_never_trained_on():
    small = data.shapes(64, 20)
    recipe = Recipe(batch_size=10, held_out=0.25)
    train, away = parts_of(recipe, small)
    rows = {image.numpy().tobytes(): row for row, image in enumerate(small[0].images)}
    kept, tested = ([rows[image.numpy().tobytes()] for image in part.images] for part in (train, away))
    assert sorted(kept + tested) == list(range(64)) and kept == sorted(kept) and "held out" in away.name
    share = small[0].labels.bincount(minlength=10) * 0.25
    assert (away.labels.bincount(minlength=10) - share).abs().max() <= 0.5, "the same share of every class"
    assert torch.equal(parts_of(replace(recipe, seed=5, lr=1.0), small)[1].images, away.images), "the same for all that are compared"
    mean, std = train.statistics()
    batches, test, plain = make_batches(replace(recipe, train_images=30), small, CPU)
    assert sum(len(labels) for _, labels in batches) == 30 and torch.equal(next(iter(test))[1], away.labels)
    expected = (away.images.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(next(iter(test))[0], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(next(iter(plain))[1], small[0].labels[kept[:30]])
    assert parts_of(Recipe(), small) == small
    record = run_record(recipe, small, CPU)
    assert (record["train_images"], record["test_images"]) == (len(train), len(away))
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="held_out"):
            Recipe(held_out=share)
    with pytest.raises(ValueError, match="to hold out 1% of each class"):
        make_batches(Recipe(held_out=0.01), small, CPU)


def test_windows_of_photographs():
    small = data.shapes(40, 20, image_size=36)
    recipe = Recipe(image_size=32, windows=True, min_area=0.5, batch_size=20, flip=True)
    train, test, _ = make_batches(recipe, small, CPU)
    mean, std = (values.view(3, 1, 1) for values in small[0].statistics())
    assert next(iter(train))[0].shape == (20, 3, 32, 32)
    torch.testing.assert_close(next(iter(test))[0], (small[1].images[:, :, 2:34, 2:34].float() / 255 - mean) / std, atol=1e-5, rtol=1e-5)
    assert train.augmentation.min_area == 0.5 and train.augmentation.flip and not test.augmentation.flip


def test_the_mean_is_tested_where_there_is_one():
    small = data.shapes(32, 20)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    recipe = Recipe(epochs=1, batch_size=16, lr=0.05, average=0.9, test_training=True)
    twin = copy.deepcopy(model)
    [row] = fit(recipe, model=model, data=small)
    [plain] = fit(Recipe.from_dict({**recipe.to_dict(), "average": 0.0}), model=twin, data=small)
    assert row["train_loss"] == plain["train_loss"] and row["test_loss"] != plain["test_loss"]
    assert torch.equal(model[1].weight, twin[1].weight) and row["trainset_loss"] != plain["trainset_loss"]
    with torch.no_grad():
        [(images, labels)] = list(make_batches(recipe, small, CPU)[2])
        logits = twin(images)
    assert plain["trainset_loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-4)
    assert plain["trainset_accuracy"] == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())


# photographs in files


def test_strength_of_random_changes_is_drawn_anew(monkeypatch):
    from cnnlib import vision

    seen = []

    class Recorder:
        def __init__(self, num_ops, magnitude):
            seen.append((num_ops, magnitude))

        def __call__(self, image):
            return image

    monkeypatch.setattr(vision.transforms_v2(), "RandAugment", Recorder)
    torch.manual_seed(0)
    for _ in range(500):
        vision.NoisyRandAugment(27, 1.5)(None)
    strengths = np.array([magnitude for _, magnitude in seen])
    assert {count for count, _ in seen} == {1} and len(seen) == 1000, "two changes an image, each of its own strength"
    assert strengths.mean() == pytest.approx(27, abs=0.2) and strengths.std() == pytest.approx(1.5, abs=0.2) and strengths.max() <= 30
    seen.clear()
    vision.NoisyRandAugment(9)(None)
    assert seen == [(1, 9), (1, 9)]


def test_erasing_with_noise():
    from cnnlib.vision import NoiseErasing

    torch.manual_seed(0)
    image = torch.full((3, 64, 64), 200, dtype=torch.uint8)
    assert torch.equal(NoiseErasing(0.0)(image), image)
    pixels = torch.cat([(erased := NoiseErasing(1.0)(image))[:, (erased != image).any(0)] for _ in range(200)], dim=1).float() / 255
    torch.testing.assert_close(pixels.mean(1), torch.tensor([0.485, 0.456, 0.406]), atol=0.01, rtol=0)
    assert (pixels.std(1) - torch.tensor([0.229, 0.224, 0.225])).abs().max() < 0.02, "noise, cut off at black and white"


def test_recipe_of_convnext_is_its_authors():
    from PIL import Image

    from cnnlib.data import ImageFiles
    from cnnlib.train import named

    recipe = named("convnext")
    assert (recipe.randaugment, recipe.randaugment_std) == (27, 1.5), "9 and 0.5 on a scale of 10"
    assert recipe.erase_noise and recipe.bicubic and recipe.erase == 0.25 and recipe.weight_decay == 0.05
    change = ImageFiles.augmentation(32, min_area=1.0, flip=False, bicubic=True)
    plain = ImageFiles.augmentation(32, min_area=1.0, flip=False)
    picture = Image.fromarray((np.random.default_rng(0).random((64, 64, 3)) * 255).astype(np.uint8))
    torch.manual_seed(0)
    cubic = change(picture)
    torch.manual_seed(0)
    assert cubic.shape == (3, 32, 32) and not torch.equal(cubic, plain(picture))
    assert not torch.equal(ImageFiles.centre(32)(picture), ImageFiles.centre(32, bicubic=True)(picture))
