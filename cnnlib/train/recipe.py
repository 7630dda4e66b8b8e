"""A `Recipe` is a whole experiment: network, data, optimization, regularization, precision, seed."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

CHOICES = {
    "optimizer": ("sgd", "adamw"),
    "schedule": ("constant", "cosine", "step", "plateau"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class Recipe:
    """One experiment, complete: saved with every checkpoint and every result.

    Rates and counts must be positive, fractions between 0 and 1; anything else raises `ValueError`.
    """

    model: str = "alexnet_cifar"  # a name of list_models()
    model_args: Mapping[str, object] = field(default_factory=dict)  # keyword arguments that differ from the row's
    data: str = "shapes"  # "cifar10", "shapes" or "folder:PATH"
    train_images: int = 0  # only so many training images; 0 means all
    epochs: int = 10
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05  # peak step size
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "step", "plateau"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)  # "step": fractions of the run after which lr is divided by 10
    patience: int = 3  # "plateau": epochs without a better test accuracy after which lr is divided by 10
    warmup_epochs: float = 0.0  # lr rises linearly from 0
    clip: float = 0.0  # largest norm of the gradient; 0 means any
    label_smoothing: float = 0.0
    aux_weight: float = 0.3  # of the losses of auxiliary classifiers, for networks that have them
    crop: int = 0  # augmentation: pad by so many pixels and crop at random
    flip: bool = False
    cutout: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    seed: int = 0

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}; choose one of {', '.join(map(repr, allowed))}")
        for name in ("epochs", "batch_size", "lr", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")
        for name in ("train_images", "weight_decay", "warmup_epochs", "clip", "crop", "cutout", "aux_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must not be negative")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1")
        object.__setattr__(self, "milestones", tuple(self.milestones))

    def to_dict(self) -> dict:
        """Plain data, as JSON has it."""
        return {**dataclasses.asdict(self), "milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Recipe":
        """The inverse of `to_dict`. Raises `ValueError` for a field that recipes do not have."""
        known = [entry.name for entry in dataclasses.fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(f"a recipe has no {', '.join(map(repr, unknown))}; its fields are {', '.join(known)}")
        return cls(**values)


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer. Weight decay applies to weights of two or more axes, not to biases and norm scales."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)


class Schedule:
    """Step size as a function of the time in epochs, and of the test accuracies so far for `"plateau"`."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.best, self.waited, self.factor = recipe, -math.inf, 0, 1.0

    def lr(self, time: float) -> float:
        recipe = self.recipe
        if time < recipe.warmup_epochs:
            return recipe.lr * time / recipe.warmup_epochs
        if recipe.schedule == "cosine":
            done = (time - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
            return recipe.lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        if recipe.schedule == "step":
            return recipe.lr * 0.1 ** sum(time >= fraction * recipe.epochs for fraction in recipe.milestones)
        return recipe.lr * self.factor

    def see(self, test_accuracy: float) -> None:
        """Called after every epoch."""
        if self.recipe.schedule != "plateau":
            return
        self.waited = 0 if test_accuracy > self.best else self.waited + 1
        self.best = max(self.best, test_accuracy)
        if self.waited >= self.recipe.patience:
            self.waited, self.factor = 0, self.factor / 10

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited, "factor": self.factor}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.best, self.waited, self.factor = state["best"], state["waited"], state["factor"]


def total_loss(outputs: torch.Tensor | Iterable[torch.Tensor], labels: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Cross-entropy; a network that returns several logits in training has the others weighed by `aux_weight`."""
    logits, *auxiliary = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    loss = nn.functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    for extra in auxiliary:
        loss = loss + recipe.aux_weight * nn.functional.cross_entropy(
            extra, labels, label_smoothing=recipe.label_smoothing)
    return loss
