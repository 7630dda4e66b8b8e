"""What a recipe says of the loss, the updates and their size."""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlib.running import decay_groups
from cnnlib.train.recipe import Recipe

STRETCHING = ("cosine", "linear", "step")  # schedules whose course depends on the length of the run
Targets = list[tuple[Tensor, float | Tensor]]  # labels (N,), and the share that they have in the image


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; `decay_groups` says which weights decay."""
    groups = decay_groups(model, recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=recipe.fused)
    if recipe.optimizer == "rmsprop":  # PyTorch has no fused one; `foreach` is the next best. eps is ours, for stability
        return torch.optim.RMSprop(groups, lr=recipe.lr, alpha=0.9, eps=1e-3, momentum=recipe.momentum,
                                   foreach=recipe.fused)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=recipe.fused)


class Schedule:
    """Step size as a function of the time in epochs, and of the test accuracies so far for `"plateau"`."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.best, self.waited, self.factor = recipe, -math.inf, 0, 1.0

    def lr(self, time: float) -> float:
        recipe = self.recipe
        if time < recipe.warmup_epochs:
            return recipe.lr * time / recipe.warmup_epochs
        done = min((time - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9), 1.0)
        if recipe.schedule == "cosine":
            return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
        if recipe.schedule == "linear":
            return recipe.lr * (1 - done)
        if recipe.schedule == "step":
            return recipe.lr * recipe.gamma ** sum(time >= fraction * recipe.epochs for fraction in recipe.milestones)
        if recipe.schedule == "exponential":
            return recipe.lr * recipe.gamma ** (time // recipe.decay_epochs)
        return recipe.lr * self.factor

    def see(self, test_accuracy: float) -> None:
        """Called after every epoch."""
        if self.recipe.schedule != "plateau":
            return
        self.waited = 0 if test_accuracy > self.best else self.waited + 1
        self.best = max(self.best, test_accuracy)
        if self.waited >= self.recipe.patience:
            self.waited, self.factor = 0, self.factor * self.recipe.gamma

    def stretch(self, epochs: int, done: float) -> str:
        """What it means for the step size that the run, so far planned for `epochs`, is longer now, after `done` of them."""
        before = Schedule(replace(self.recipe, epochs=epochs))
        before.load_state_dict(self.state_dict())
        if self.recipe.schedule not in STRETCHING:
            return f"; the {self.recipe.schedule} schedule goes on as it would have"
        return (f"; the {self.recipe.schedule} schedule stretches with it: lr goes on at {self.lr(done):.4g}, where the shorter "
                f"run had come down to {before.lr(done):.4g}")

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited, "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.best, self.waited, self.factor = state["best"], state["waited"], state["factor"]


class Average:
    """A second network whose weights and statistics are a running mean of the first one's.

    After t updates the mean keeps min(decay, (1 + t) / (10 + t)) of itself, so that it forgets the beginning quickly.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.source, self.model, self.decay = model, copy.deepcopy(model).requires_grad_(False), decay

    @torch.no_grad()
    def update(self, updates: int) -> None:
        keep = min(self.decay, (1 + updates) / (10 + updates))
        ours, theirs = self.model.state_dict().values(), self.source.state_dict().values()
        floats = [(a, b) for a, b in zip(ours, theirs) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - keep)
        for a, b in zip(ours, theirs):
            if not a.is_floating_point():
                a.copy_(b)


def mix(images: Tensor, labels: Tensor, recipe: Recipe, *, epoch: int, step: int) -> tuple[Tensor, Targets]:
    """Mixup or cutmix of every image with its neighbour in the (shuffled) batch; plain images where a recipe has none.

    The draw depends on seed, epoch and step alone. Neighbours are pairs, so that processes which share a batch evenly
    mix the same pairs as one process would.
    """
    kinds = [kind for kind in ("mixup", "cutmix") if getattr(recipe, kind)]
    if not kinds:
        return images, [(labels, 1.0)]
    draw = np.random.default_rng([recipe.seed, epoch, step])
    kind = kinds[draw.integers(len(kinds))]
    share = float(draw.beta(getattr(recipe, kind), getattr(recipe, kind)))
    partner = (torch.arange(len(images), device=images.device) ^ 1).clamp(max=len(images) - 1)
    others = images[partner]
    if kind == "mixup":
        images = images.lerp(others, 1 - share)
    else:
        size = np.array(images.shape[2:])
        centre, reach = draw.integers(size), np.rint(size * math.sqrt(1 - share) / 2).astype(int)
        (top, left), (bottom, right) = (centre - reach).clip(0), np.minimum(centre + reach, size)
        images = images.clone()
        images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        share = 1 - float((bottom - top) * (right - left) / size.prod())
    return images, [(labels, share), (labels[partner], 1 - share)]


def total_loss(outputs: Tensor | Iterable[Tensor], targets: Tensor | Targets, recipe: Recipe) -> Tensor:
    """Mean cross-entropy; a network that returns several logits in training has the others weighed by `aux_weight`."""
    targets = [(targets, 1.0)] if isinstance(targets, Tensor) else targets
    logits, *auxiliary = (outputs,) if isinstance(outputs, Tensor) else outputs

    def loss_of(logits: Tensor) -> Tensor:
        first, *others = (F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing) * share
                          for labels, share in targets)
        return sum(others, first)

    return sum((recipe.aux_weight * loss_of(extra) for extra in auxiliary), loss_of(logits))
