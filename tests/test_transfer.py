"""Few images of chosen classes, the linear probe and fine-tuning."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.data import shapes
from cnnlib.features import linear_classifier
from cnnlib.transfer import (PENALTIES, features_at, few, fine_tune, linear_probe, normalized, only, parameter_groups,
                             scores)


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
    assert torch.allclose(found["head.6"], hidden)
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
        """By the long way: leave out each image, solve again. Standardized once, with all of them, as the probe does."""
        errors = []
        for i in range(count):
            kept = torch.arange(count) != i
            mean_x, mean_y = standard[kept].mean(0), targets[kept].mean(0)
            centred = (standard[kept] - mean_x).double()
            gram = centred.T @ centred + penalty * torch.eye(features, dtype=torch.double)
            weights = torch.linalg.solve(gram, centred.T @ (targets[kept] - mean_y).double())
            errors.append(((standard[i] - mean_x).double() @ weights + mean_y - targets[i]).square().mean())
        return torch.stack(errors).mean().item()

    assert probe.penalty == min(PENALTIES, key=left_out)
    weights = linear_classifier(standard, labels, 2, penalty=probe.penalty)
    assert torch.allclose(weights[:-1], probe.weights, atol=1e-4)  # the bias differs: there it is penalized


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
        set() if keep else {key for key in before if key.endswith(("running_mean", "running_var", "num_batches_tracked"))})


def test_fine_tuning_learns_and_repeats():
    """Three colours under noise: over 40 starts the loss falls to less than a twentieth, so a quarter is no matter of last bits."""
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
