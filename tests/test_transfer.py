"""Few images of chosen classes, the linear probe and fine-tuning."""

import pytest
import torch
from other_device import OtherDevice
from torch import nn

from cnnlib import create_model
from cnnlib.data import shapes
from cnnlib.transfer import (PENALTIES, features_at, few, fine_tune, linear_probe, normalized, on_validation, only,
                             parameter_groups, scores)


@pytest.fixture(scope="module")
def train():
    return shapes(400, 10)[0]


def small(classes=3):
    torch.manual_seed(0)
    return create_model("vgg11_cifar_bn", widths=(4, 4, 4, 4, 4), hidden=8, num_classes=classes, dropout=0.0)


def test_only_keeps_the_named_classes_and_counts_anew(train):
    part = only(train, ("ring", "disc"))
    assert part.classes == ("ring", "disc") and len(part) == 80
    own = train.images[train.labels == train.classes.index("ring")]
    assert torch.equal(part.images[part.labels == 0], own)
    with pytest.raises(ValueError, match="no classes cat; the set has disc"):
        only(train, ("cat",))


def test_few_takes_as_many_of_each_and_more_adds_to_them(train):
    five, ten = few(train, 5, seed=1), few(train, 10, seed=1)
    assert torch.equal(five.labels.bincount(), torch.full((10,), 5))
    assert torch.equal(five.images.view(10, 5, -1), ten.images.view(10, 10, -1)[:, :5])
    assert not torch.equal(five.images, few(train, 5, seed=2).images)
    with pytest.raises(ValueError, match="per_class=41: class 'disc' has 40 images"):
        few(train, 41, seed=0)


def test_features_are_the_layers_outputs_in_evaluation_mode(train):
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = normalized(train.first(9), *train.statistics())
    found = features_at(model, ("stages.2", "head.6"), images, grid=2)
    model.eval()
    with torch.no_grad():
        maps = model.stages[:3](images)
        hidden = model.head[:7](model.stages(images))
    assert torch.allclose(found["stages.2"], nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))
    assert torch.allclose(found["head.6"], hidden) and not found["head.6"].requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_normalized_pixels_have_mean_0_and_deviation_1(train):
    images = normalized(train, *train.statistics())
    assert images.mean((0, 2, 3)).abs().max() < 1e-4
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count, features", [(60, 10), (30, 50)])
def test_the_probe_is_ridge_regression_with_the_best_penalty(count, features):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, features, generator=generator)
    labels = (x[:, 0] + torch.randn(count, generator=generator) > 0).long()
    probe = linear_probe(x, labels, 2)
    standard = (x - x.mean(0)) / (x.std(0) + 1e-6)
    targets = 2.0 * nn.functional.one_hot(labels, 2) - 1

    def left_out(penalty):
        """By the long way: leave out each image, solve again. Standardized once, with all of them, as the probe
        does.
        """
        errors = []
        for i in range(count):
            kept = torch.arange(count) != i
            mean_x, mean_y = standard[kept].mean(0), targets[kept].mean(0)
            centred = (standard[kept] - mean_x).double()
            gram = centred.T @ centred + penalty * torch.eye(features, dtype=torch.double)
            weights = torch.linalg.solve(gram, centred.T @ (targets[kept] - mean_y).double())
            errors.append(((standard[i] - mean_x).double() @ weights + mean_y - targets[i]).square().mean())
        return torch.stack(errors).mean().item()

    assert probe.penalty == min(PENALTIES, key=left_out) and probe.error == pytest.approx(left_out(probe.penalty),
                                                                                          rel=1e-6)
    weights, bias = probe.weights.double().requires_grad_(), probe.bias.double().requires_grad_()
    loss = (standard.double() @ weights + bias - targets).square().sum() + probe.penalty * weights.square().sum()
    loss.backward()
    assert max(weights.grad.abs().max(), bias.grad.abs().max()) < 1e-3  # the bias is not penalized
    assert torch.allclose(probe(x), standard @ probe.weights + probe.bias, atol=1e-5)


def test_the_longest_name_gives_the_rate():
    model = small()
    groups = parameter_groups(model, {"": 0.1, "stages.1": 0.0, "stages.1.0.norm": 0.2, "head": 0.3})
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rates[id(model.stages[0][0].conv.weight)] == 0.1
    assert id(model.stages[1][0].conv.weight) not in rates and not model.stages[1][0].conv.weight.requires_grad
    assert rates[id(model.stages[1][0].norm.weight)] == 0.2 and rates[id(model.head[-1].bias)] == 0.3
    for group in groups:
        assert all((parameter.dim() > 1) == ("weight_decay" not in group) for parameter in group["params"])
    with pytest.raises(ValueError, match="no parameter begins with 'stage'"):
        parameter_groups(model, {"": 0.1, "stage": 0.0})
    with pytest.raises(ValueError, match="no rate for stages.0.0.conv.weight"):
        parameter_groups(model, {"head": 0.1})


@pytest.mark.parametrize("keep", [False, True])
def test_frozen_parts_stay_and_statistics_move_unless_they_are_kept(train, keep):
    model, part = small(), only(train, ("disc", "frame", "bar"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = fine_tune(model, normalized(part, *train.statistics()), part.labels, {"": 0.0, "head": 0.05}, steps=3,
                       batch_size=8, keep_statistics=keep)
    assert len(losses) == 3
    changed = {key for key, value in model.state_dict().items() if not torch.equal(before[key], value)}
    assert any(key.startswith("head") for key in changed)
    assert {key for key in changed if key.startswith("stages")} == (
        set() if keep else {key for key in before if key.endswith(("running_mean", "running_var",
                                                                   "num_batches_tracked"))})


def test_fine_tuning_learns_and_repeats():
    """Three colours under noise: over 40 starts the loss falls to less than a twentieth, so a quarter is no matter of
    last bits.
    """
    generator, labels = torch.Generator().manual_seed(0), torch.arange(24) % 3
    images = torch.randn(24, 3, 8, 8, generator=generator)
    images[torch.arange(24), labels] += 2

    def tuned(seed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
        return model, fine_tune(model, images, labels, {"": 0.1}, steps=40, batch_size=24, seed=seed)

    (model, losses), (again, repeated), (_, other) = tuned(3), tuned(3), tuned(4)
    assert sum(losses[-5:]) < 0.25 * sum(losses[:5])
    assert losses == repeated and losses != other  # the same draws, and the same sums on the same machine
    assert torch.equal(scores(model, images), scores(again, images)) and model.training
    assert (scores(model, images).argmax(1) == labels).all()


def test_what_does_not_fit_is_named(train):
    model, images = small(), torch.randn(6, 3, 32, 32)
    with pytest.raises(ValueError, match="labels go up to 5, but the network has 3 outputs"):
        fine_tune(model, images, torch.arange(6), {"": 0.1}, steps=1)
    with pytest.raises(ValueError, match="the loss is not a number in step 1"):
        fine_tune(model, images * float("nan"), torch.zeros(6, dtype=torch.long), {"": 0.1}, steps=2)
    with pytest.raises(ValueError, match="labels go from 0 to 5, but there are 3 classes"):
        linear_probe(torch.randn(6, 4), torch.arange(6), 3)
    with pytest.raises(ValueError, match="1 rows of features and 1 labels"):
        linear_probe(torch.randn(1, 4), torch.zeros(1, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="each once"):
        only(train, ("disc", "disc"))
    with pytest.raises(ValueError, match="per_class=0"):
        few(train, 0, seed=0)


def test_every_tuned_step_by_hand(train):
    """Three steps of SGD with momentum, decay of weights alone, and a rate that falls along a cosine; the batches
    drawn as documented.
    """
    torch.manual_seed(0)
    images, labels = torch.randn(10, 3, 4, 4), torch.arange(10) % 2
    model = nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten())
    weight, bias = (value.detach().clone().requires_grad_() for value in model.parameters())
    losses = fine_tune(model, images, labels, {"": 0.2, "0.bias": 0.5}, steps=3, batch_size=6, weight_decay=0.1, seed=7)
    generator, velocities = torch.Generator().manual_seed(7), [0.0, 0.0]
    for step, share in enumerate((1.0, 0.75, 0.25)):  # (1 + cos(pi k / 3)) / 2
        rows = torch.randint(10, (6,), generator=generator)
        batch = torch.stack([images[row].flip(2) if mirror else images[row]
                             for row, mirror in zip(rows, torch.rand(6, generator=generator) < 0.5)])
        loss = nn.functional.cross_entropy((batch.flatten(1) @ weight.flatten(1).T) + bias, labels[rows])
        assert loss.item() == pytest.approx(losses[step], rel=1e-4)
        gradients = torch.autograd.grad(loss, (weight, bias))
        with torch.no_grad():
            for k, (value, gradient, rate, decay) in enumerate(zip((weight, bias), gradients, (0.2, 0.5), (0.1, 0.0))):
                velocities[k] = 0.9 * velocities[k] + gradient + decay * value
                value -= share * rate * velocities[k]
    assert torch.allclose(model[0].weight, weight, atol=1e-5) and torch.allclose(model[0].bias, bias, atol=1e-5)


def test_options_are_judged_on_held_out_training_images(train):
    seen = []

    def accuracy_of(option, kept, away):
        seen.append((kept, away))
        return {"a": 10.0, "b": 90.0}[option]

    found = on_validation("ab", train, accuracy_of, held_out=0.25, seed=3)
    assert found == {"a": 10.0, "b": 90.0}
    for kept, away in seen:
        assert kept.labels.bincount().tolist() == [30] * 10 and away.labels.bincount().tolist() == [10] * 10
        both = torch.cat([kept.images, away.images]).flatten(1)
        assert len(both.unique(dim=0)) == len(train.images.flatten(1).unique(dim=0)) == 400
    assert torch.equal(seen[0][1].images, seen[1][1].images)
    assert not torch.equal(seen[0][1].images, on_validation("a", train, lambda o, kept, away: away, held_out=0.25,
                                                            seed=4)["a"].images)


@pytest.mark.parametrize("features", [7, 90])
def test_a_probe_says_more_of_better_features(features):
    """Its error on images left out is lower for features that hold the class, whichever square matrix is decomposed."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    noise = torch.randn(60, features)
    good = noise.clone()
    good[torch.arange(60), labels] += 4
    probes = [linear_probe(x, labels, 3) for x in (noise, good)]
    assert probes[1].error < 0.5 * probes[0].error
    assert (probes[1](good).argmax(1) == labels).all()


def test_everything_works_on_another_device(train):
    model = small()
    with OtherDevice() as other:
        there, mean, std = train.to(other.device), *train.statistics()
        task = few(only(there, ("disc", "bar", "ring")), 12, seed=0)
        assert other.has(task.images) and other.has(task.labels) and torch.equal(task.labels.cpu().bincount(),
                                                                                 torch.full((3,), 12))
        images = normalized(task, mean, std)
        assert other.has(images)
        model.to(other.device)
        found = features_at(model, ["stages.2"], images.cpu())["stages.2"]  # images go where the network is
        assert other.has(found)
        probe = linear_probe(found, task.labels, 3)
        assert other.has(probe(found)) and probe(found).shape == (36, 3)
        losses = fine_tune(model, images, task.labels, {"": 0.05}, steps=2, batch_size=4)
        assert len(losses) == 2 and other.has(scores(model, images)) and other.has(scores(model, images.cpu()))
        validated = on_validation((1, 2), task, lambda option, kept, away: other.has(kept.images)
                                  and other.has(away.labels))
        assert validated == {1: True, 2: True}
