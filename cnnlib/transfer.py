"""Reuse of a trained network: few images of chosen classes, a linear probe on its features, and fine-tuning."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnlib.analysis import outputs_of
from cnnlib.data import ImageSet

PENALTIES = tuple(10.0**k for k in range(6))
EVALUATION_BATCH = 500


# --- data -------------------------------------------------------------------------------------------------------------


def only(image_set: ImageSet, classes: Sequence[str]) -> ImageSet:
    """The images of these classes, in their old order; labels count in the order of `classes`.

    Raises `ValueError` for a class that the set does not have.
    """
    if unknown := [name for name in classes if name not in image_set.classes]:
        raise ValueError(f"no classes {', '.join(unknown)}; the set has {', '.join(image_set.classes)}")
    number = torch.full((len(image_set.classes),), -1)
    number[[image_set.classes.index(name) for name in classes]] = torch.arange(len(classes))
    labels = number[image_set.labels]
    kept = labels >= 0
    return replace(image_set, images=image_set.images[kept], labels=labels[kept], classes=tuple(classes))


def few(image_set: ImageSet, per_class: int, *, seed: int) -> ImageSet:
    """So many images of every class, drawn at random; a larger `per_class` with the same `seed` adds to them.

    Raises `ValueError` if a class has fewer.
    """
    order = torch.randperm(len(image_set), generator=torch.Generator().manual_seed(seed))
    rows = []
    for label, name in enumerate(image_set.classes):
        own = order[image_set.labels[order] == label]
        if len(own) < per_class:
            raise ValueError(f"per_class={per_class}: class {name!r} has {len(own)} images")
        rows.append(own[:per_class])
    rows = torch.cat(rows)
    return replace(image_set, images=image_set.images[rows], labels=image_set.labels[rows])


def normalized(image_set: ImageSet, mean: Tensor, std: Tensor) -> Tensor:
    """Float images (N, C, H, W), each channel less its `mean` and divided by its `std`, both of pixels in [0, 1]."""
    return (image_set.images.float() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


# --- a linear probe ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def features_at(model: nn.Module, layers: Sequence[str], images: Tensor, *, grid: int = 1) -> dict[str, Tensor]:
    """Outputs (N, features) of layers in evaluation mode; maps are averaged to `grid` x `grid`, if they are larger."""
    training, parts = model.training, {layer: [] for layer in layers}
    model.eval()
    try:
        for batch in images.split(EVALUATION_BATCH):
            for layer, output in outputs_of(model, layers, batch).items():
                if output.dim() == 4:
                    output = F.adaptive_avg_pool2d(output, [min(grid, size) for size in output.shape[2:]])
                parts[layer].append(output.flatten(1))
    finally:
        model.train(training)
    return {layer: torch.cat(outputs) for layer, outputs in parts.items()}


@dataclass(frozen=True)
class LinearProbe:
    """Scores (N, classes) = ((features - mean) / scale) @ weights + bias; `penalty` is the one that was chosen."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale @ self.weights + self.bias


def linear_probe(features: Tensor, labels: Tensor, classes: int) -> LinearProbe:
    """Ridge regression from features (N, F) to +1 for the own class and -1 for the others.

    Features are standardized. Of `PENALTIES`, the one with the smallest squared error on images left out, one at a
    time, is taken; all of it in closed form from one singular value decomposition. Needs no step size and no test image.
    """
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x = ((features - mean) / scale).double()
    targets = 2.0 * F.one_hot(labels, classes).double() - 1
    bias = targets.mean(0)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    coordinates = u.T @ (targets - bias)

    def left_out_error(penalty: float) -> float:
        shrink = s**2 / (s**2 + penalty)
        leverage = (u**2 * shrink).sum(1) + 1 / len(x)
        residual = targets - bias - u @ (shrink[:, None] * coordinates)
        return (residual / (1 - leverage)[:, None]).square().mean().item()

    penalty = min(PENALTIES, key=left_out_error)
    weights = vt.T @ ((s / (s**2 + penalty))[:, None] * coordinates)
    return LinearProbe(mean, scale, weights.float(), bias.float(), penalty)


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def parameter_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict]:
    """Groups for an optimizer: every parameter with the rate of the longest name in `rates` that it begins with.

    `{"": 0.001, "head": 0.01, "stages.0": 0.0}`: ten times the rate in the head, and the first stage frozen. A
    parameter of rate 0 is left out and gets no gradient. Biases and norms (tensors of one dimension) have no weight decay.
    Raises `ValueError` for a name that fits no parameter, or a parameter that no name fits.
    """
    named, groups = dict(model.named_parameters()), {}

    def begins(name: str, prefix: str) -> bool:
        return prefix in ("", name) or name.startswith(prefix + ".")

    if unused := [prefix for prefix in rates if not any(begins(name, prefix) for name in named)]:
        raise ValueError(f"no parameter begins with {', '.join(map(repr, unused))}")
    for name, parameter in named.items():
        prefix = max((prefix for prefix in rates if begins(name, prefix)), key=len, default=None)
        if prefix is None:
            raise ValueError(f"no rate for {name}; name it, or give the rest a rate under ''")
        parameter.requires_grad_(rates[prefix] > 0)
        if rates[prefix] > 0:
            groups.setdefault((rates[prefix], parameter.dim() > 1), []).append(parameter)
    return [{"params": members, "lr": lr, **({} if decays else {"weight_decay": 0.0})}
            for (lr, decays), members in groups.items()]


def fine_tune(
    model: nn.Module, images: Tensor, labels: Tensor, rates: Mapping[str, float], *, steps: int, batch_size: int = 32,
    weight_decay: float = 5e-4, keep_statistics: bool = False, bfloat16: bool = False, seed: int = 0,
) -> list[float]:
    """Train on normalized images (N, C, H, W) for so many steps, in place; returns the loss of every step.

    Every step draws a batch with replacement and mirrors half of it. Rates, see `parameter_groups`, fall to 0 along a
    cosine. With `keep_statistics`, batch norm normalizes by the averages it came with and leaves them as they are.
    """
    groups = parameter_groups(model, rates)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for module in model.modules():
        if keep_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(images), (batch_size,), generator=generator)
        mirrored = torch.rand(batch_size, generator=generator) < 0.5
        batch = torch.where(mirrored.view(-1, 1, 1, 1), images[rows].flip(3), images[rows])
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            loss = F.cross_entropy(model(batch.contiguous(memory_format=torch.channels_last)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def scores(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, classes) in evaluation mode."""
    training = model.training
    model.eval()
    logits = torch.cat([model(batch) for batch in images.split(EVALUATION_BATCH)])
    model.train(training)
    return logits
