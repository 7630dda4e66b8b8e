"""Reuse of a trained network: few images of chosen classes, a linear probe on its features, and fine-tuning.

    task = few(only(train, ("cat", "dog")), 30, seed=0)
    accuracies = on_validation(rates, task, accuracy_of)     # a layer or a step size is chosen without a test image
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnlib.analysis import outputs_of
from cnnlib.data import ImageFiles, ImageSet, split
from cnnlib.features import PENALTIES, LinearProbe, linear_probe
from cnnlib.running import autocast, choose_precision, decays, evaluating, predictions

__all__ = ["PENALTIES", "LinearProbe", "features_at", "few", "fine_tune", "linear_probe", "normalized",
           "on_validation", "only",
           "parameter_groups", "scores"]

EVALUATION_BATCH = 500
Images = TypeVar("Images", ImageSet, ImageFiles)


# --- data -------------------------------------------------------------------------------------------------------------


def only(image_set: Images, classes: Sequence[str]) -> Images:
    """The images of these classes, in their old order; labels count in the order of `classes`.

    Raises `ValueError` for a class that the set does not have, or that is named twice.
    """
    if unknown := [name for name in classes if name not in image_set.classes]:
        raise ValueError(f"no classes {', '.join(unknown)}; the set has {', '.join(image_set.classes)}")
    if len(set(classes)) < len(classes) or not classes:
        raise ValueError(f"classes={tuple(classes)!r}: at least one, each once")
    old = image_set.labels.cpu()
    new = torch.full((len(image_set.classes),), -1)
    new[[image_set.classes.index(name) for name in classes]] = torch.arange(len(classes))
    kept = image_set.rows((new[old] >= 0).nonzero().flatten())
    return replace(kept, labels=new[kept.labels.cpu()].to(kept.labels.device), classes=tuple(classes))


def few(image_set: Images, per_class: int, *, seed: int) -> Images:
    """So many images of every class, drawn at random; a larger `per_class` with the same `seed` adds to them.

    Raises `ValueError` if a class has fewer.
    """
    if per_class < 1:
        raise ValueError(f"per_class={per_class!r} must be positive")
    order = torch.randperm(len(image_set), generator=torch.Generator().manual_seed(seed))
    labels, rows = image_set.labels.cpu()[order], []
    for label, name in enumerate(image_set.classes):
        own = order[labels == label]
        if len(own) < per_class:
            raise ValueError(f"per_class={per_class}: class {name!r} has {len(own)} images")
        rows.append(own[:per_class])
    return image_set.rows(torch.cat(rows))


def on_validation(
    options: Iterable[Hashable], image_set: ImageSet, accuracy_of: Callable[[Hashable, ImageSet, ImageSet], float], *,
    held_out: float = 0.2, seed: int = 0,
) -> dict[Hashable, float]:
    """What `accuracy_of(option, training, validation)` gives for each option, on one split of the training images.

    Take the best, `max(found, key=found.get)`, before any test image is looked at. Of every class the same share is
    `held_out`.
    """
    kept, away = (image_set.rows(rows) for rows in split(image_set.labels, held_out, image_set.classes, seed=seed))
    return {option: accuracy_of(option, kept, away) for option in options}


def normalized(image_set: ImageSet, mean: Tensor, std: Tensor) -> Tensor:
    """Float images (N, C, H, W), each channel less its `mean` and divided by its `std`, both of pixels in [0, 1]."""
    mean, std = (values.to(image_set.images.device).view(-1, 1, 1) for values in (mean, std))
    return (image_set.images.float() / 255 - mean) / std


# --- features ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def features_at(model: nn.Module, layers: Sequence[str], images: Tensor, *, grid: int = 1) -> dict[str, Tensor]:
    """Outputs (N, features) of layers in evaluation mode; maps are averaged to `grid` x `grid`, if they are larger."""
    parts, device = {layer: [] for layer in layers}, next(model.parameters()).device
    with evaluating(model):
        for batch in images.split(EVALUATION_BATCH):
            for layer, output in outputs_of(model, layers, batch.to(device)).items():
                if output.dim() == 4:
                    output = F.adaptive_avg_pool2d(output, [min(grid, size) for size in output.shape[2:]])
                parts[layer].append(output.flatten(1))
    return {layer: torch.cat(outputs) for layer, outputs in parts.items()}


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def parameter_groups(model: nn.Module, rates: Mapping[str, float]) -> list[dict]:
    """Groups for an optimizer: every parameter with the rate of the longest name in `rates` that it begins with.

    `{"": 0.001, "head": 0.01, "stages.0": 0.0}`: ten times the rate in the head, and the first stage frozen. A
    parameter of rate 0 is left out and gets no gradient. Biases and norms (tensors of one dimension) have no weight
    decay. Raises `ValueError` for a name that fits no parameter, or a parameter that no name fits.
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
            groups.setdefault((rates[prefix], decays(parameter)), []).append(parameter)
    return [{"params": members, "lr": lr, **({} if decay else {"weight_decay": 0.0})}
            for (lr, decay), members in groups.items()]


def fine_tune(
    model: nn.Module, images: Tensor, labels: Tensor, rates: Mapping[str, float], *, steps: int, batch_size: int = 32,
    weight_decay: float = 5e-4, keep_statistics: bool = False, precision: str = "float32", seed: int = 0,
) -> list[float]:
    """Train on normalized images (N, C, H, W) for so many steps, in place; returns the loss of every step.

    Every step draws a batch with replacement and mirrors half of it. Rates, see `parameter_groups`, fall to 0 along a
    cosine. With `keep_statistics`, batch norm normalizes by the averages it came with and leaves them as they are.
    Raises `ValueError` for labels that the network has no output for, and for a loss that is no longer a number.
    """
    device = next(model.parameters()).device
    images, labels = images.to(device), labels.to(device)
    used, _ = choose_precision(precision, device)
    groups = parameter_groups(model, rates)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
    scaler = torch.amp.GradScaler(device.type, enabled=used == "float16")
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for module in model.modules():
        if keep_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    losses = []
    for step in range(steps):
        rows = torch.randint(len(images), (batch_size,), generator=generator).to(device)
        mirrored = (torch.rand(batch_size, generator=generator) < 0.5).to(device)
        batch = torch.where(mirrored.view(-1, 1, 1, 1), images[rows].flip(3), images[rows])
        with autocast(used, device):
            logits = model(batch.contiguous(memory_format=torch.channels_last))
            if step == 0 and int(labels.max()) >= logits.shape[1]:
                raise ValueError(f"labels go up to {int(labels.max())}, but the network has {logits.shape[1]} "
                                 f"outputs; give it a new head")
            loss = F.cross_entropy(logits, labels[rows])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss is not a number in step {step + 1}: rates={dict(rates)} may be too large")
    return losses


def scores(model: nn.Module, images: Tensor, *, precision: str = "float32") -> Tensor:
    """Logits (N, classes) in evaluation mode."""
    device = next(model.parameters()).device
    return torch.cat([logits for logits, _ in predictions(
        model, ((batch.to(device), batch) for batch in images.split(EVALUATION_BATCH)), precision)])
