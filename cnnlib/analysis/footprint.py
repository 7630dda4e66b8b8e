"""What part of the input a unit really listens to: the gradient of one unit with respect to the input's pixels.

The receptive field says which pixels can matter; the footprint says how much each one does, for given weights or on
average over initializations. In deep networks it looks like a Gaussian and fills a small part of the field, whose
width grows as the square root of depth (Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in
deep convolutional neural networks", NeurIPS 2016).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .watch import outputs_of, unchanged


@dataclass(frozen=True)
class Footprint:
    """Mean absolute gradient of one unit, summed over its channels, at each pixel of the input (channels summed).

    `map` has the input's spatial shape and sums to 1 (it is 0 everywhere if no gradient arrives); `unit` is the
    unit's index.
    """

    map: Tensor
    unit: tuple[int, ...]

    @property
    def centre(self) -> tuple[float, ...]:
        """The mean position along each axis, in pixels."""
        return tuple(float((line * torch.arange(len(line))).sum()) for line in self._lines())

    @property
    def spread(self) -> tuple[float, ...]:
        """The standard deviation along each axis, in pixels."""
        return tuple(math.sqrt(float((line * (torch.arange(len(line)) - mean) ** 2).sum()))
                     for line, mean in zip(self._lines(), self.centre))

    @property
    def extent(self) -> tuple[tuple[int, int], ...] | None:
        """First and last pixel along each axis with any gradient; None if there is none."""
        places = [line.nonzero().flatten().tolist() for line in self._lines()]
        return tuple((line[0], line[-1]) for line in places) if self.map.any() else None

    def share_within(self, size: Sequence[int]) -> float:
        """The share of the gradient inside a box of `size` pixels around the centre."""
        part = self.map
        for axis, (middle, length) in enumerate(zip(self.centre, size)):
            start = max(round(middle - (length - 1) / 2), 0)
            part = part.narrow(axis, start, min(length, part.shape[axis] - start))
        return float(part.sum())

    def _lines(self) -> list[Tensor]:
        return [self.map.movedim(axis, 0).reshape(length, -1).sum(1) for axis, length in enumerate(self.map.shape)]


def gradient_footprint(
    model: nn.Module,
    images: Tensor,
    layer: str = "",
    *,
    unit: Sequence[int] | None = None,
    initializations: int = 0,
    seed: int = 0,
) -> Footprint:
    """The effective receptive field of a unit of `layer` (a dotted module name; "" is the whole network).

    The gradient of the unit, each channel weighted by a random sign so that channels do not cancel by accident, is
    taken with respect to `images` (N, C, H, W), and its absolute value averaged over them. `unit` is a position
    (row, column), by default the central one. With `initializations` = n > 0 the average is also over n copies of
    the model, each with new random weights (every module's own `reset_parameters`); with 0 it is for the weights as
    they are. Copies run in evaluation mode; the model is not changed.

    Raises `ValueError` for an unknown layer, a position that it does not have, and a model on the meta device, which has no values.
    """
    return gradient_footprints(model, images, [layer], unit=unit, initializations=initializations, seed=seed)[layer]


def gradient_footprints(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[str],
    *,
    unit: Sequence[int] | None = None,
    initializations: int = 0,
    seed: int = 0,
) -> dict[str, Footprint]:
    """`gradient_footprint` of several layers, from one forward pass for each initialization."""
    modules = dict(model.named_modules())
    if unknown := [layer for layer in layers if layer not in modules]:
        raise ValueError(f"no module {unknown[0]!r}; the first ones are {', '.join(list(modules)[1:6])}")
    if any(tensor.is_meta for tensor in [images, *model.parameters(), *model.buffers()]):
        raise ValueError("a footprint needs values, and the model or the images are on the meta device, where there are none; build the "
                         "model on a device with memory, such as the CPU")
    generators = {layer: torch.Generator().manual_seed(seed) for layer in layers}  # each as if it were alone
    totals = {layer: torch.zeros(images.shape[2:], dtype=torch.float64) for layer in layers}
    places = {}
    with unchanged([]):  # and so the random states
        torch.manual_seed(seed)
        for _ in range(max(initializations, 1)):
            network = copy.deepcopy(model).eval().requires_grad_(False)
            if initializations:
                for module in network.modules():
                    if hasattr(module, "reset_parameters"):
                        module.reset_parameters()
            pixels = images.detach().clone().requires_grad_()
            with torch.enable_grad():
                outputs = outputs_of(network, layers, pixels)
            for layer, output in outputs.items():
                lengths = tuple(output.shape[2:])
                place = places[layer] = tuple(length // 2 for length in lengths) if unit is None else tuple(unit)
                if len(place) != len(lengths) or not all(0 <= i < length for i, length in zip(place, lengths)):
                    raise ValueError(f"unit must lie within {lengths}, the positions of {layer!r}; got {place}")
                channels = output[(slice(None), slice(None), *place)]
                signs = torch.randint(0, 2, channels.shape, generator=generators[layer]) * 2 - 1
                if channels.requires_grad:
                    total = (channels * signs).sum()
                    gradient, = torch.autograd.grad(total, pixels, retain_graph=True, materialize_grads=True)
                    totals[layer] += gradient.abs().sum((0, 1), dtype=torch.float64)
    return {layer: Footprint(total / total.sum() if total.any() else total, places[layer])
            for layer, total in totals.items()}
