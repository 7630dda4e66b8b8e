"""How a signal and its gradient fare on their way through a network, one batch of images measured layer by layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .watch import unchanged


@dataclass(frozen=True)
class Signal:
    """Of one layer with weights: root mean squares of what it is given, and of the loss's gradient for its weights."""

    name: str
    input: float
    gradient: float


def signals(model: nn.Module, images: Tensor, labels: Tensor) -> list[Signal]:
    """One forward and backward pass with the mean cross-entropy; convolutions and fully connected layers, in forward order.

    `images` (N, C, H, W), `labels` (N,). The model is taken in the mode in which it is, and left as it was: weights, their `.grad`,
    running statistics, random states. A layer that is called twice stands twice.
    """
    given = []
    layers = {layer: name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    with unchanged(model.named_modules(), values=True), torch.enable_grad():
        for layer in layers:
            layer.register_forward_pre_hook(lambda layer, args: given.append((layer, rms(args[0]))))
        loss = nn.functional.cross_entropy(model(images), labels)
    called = list(dict.fromkeys(layer for layer, _ in given))
    gradients = dict(zip(called, torch.autograd.grad(loss, [layer.weight for layer in called])))
    return [Signal(layers[layer], size, rms(gradients[layer])) for layer, size in given]


def rms(x: Tensor) -> float:
    """Root mean square, in double precision: it may be very small."""
    return x.detach().double().square().mean().sqrt().item()
