"""What a trained network looks at: strongest responses, projections back to pixels, occlusion, and aliased filters.

After Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv:1311.2901.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .watch import named_modules, outputs_of, unchanged


@torch.no_grad()
def strongest_responses(
    model: nn.Module, layer: str, images: Tensor, *, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """For each image and channel of a layer's maps: the largest value (N, C), and its row and column (N, C, 2)."""
    values, places = [], []
    for batch in images.split(batch_size):
        maps = outputs_of(model, [layer], batch)[layer]
        value, place = maps.flatten(2).max(2)
        values.append(value)
        places.append(torch.stack((place // maps.shape[3], place % maps.shape[3]), dim=2))
    return torch.cat(values), torch.cat(places)


class RectifiedBothWays(torch.autograd.Function):
    """ReLU whose backward pass rectifies what comes back, instead of asking where the input was positive."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def backward(ctx, signal: Tensor) -> Tensor:
        return signal.relu()


@contextmanager
def calls_replaced(model: nn.Module, kind: type[nn.Module], function: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within this context every module of a kind computes `function` instead."""
    modules = [(module, module.__dict__.get("forward")) for module in model.modules() if isinstance(module, kind)]
    try:
        for module, _ in modules:
            module.forward = function
        yield
    finally:
        for module, own in modules:
            module.__dict__.pop("forward", None)
            if own is not None:
                module.__dict__["forward"] = own


def deconvolve(model: nn.Module, layer: str, images: Tensor, units: Tensor) -> Tensor:
    """Project one unit of a layer's maps back to the pixels of each image, as a deconvnet does: (N, C, H, W).

    `units` (N, 3) names channel, row and column for each image. A deconvnet unpools through the places of the maxima,
    rectifies, and filters with the transposed weights. Unpooling and filtering are what the backward pass of pooling and
    convolution does already (Simonyan, Vedaldi, Zisserman 2014, section 4); only ReLU's backward pass is replaced.
    The network must use `nn.ReLU`; other activations and normalizations pass their ordinary gradient. Put the model in
    evaluation mode before.
    """
    images = images.detach().clone().requires_grad_()
    with calls_replaced(model, nn.ReLU, RectifiedBothWays.apply), torch.enable_grad():
        maps = outputs_of(model, [layer], images)[layer]
        channel, row, column = units.unbind(1)
        chosen = maps[torch.arange(len(images)), channel, row, column]
        projection, = torch.autograd.grad(chosen, images, grad_outputs=chosen.detach())
    return projection


@torch.no_grad()
def occlusion_map(model: nn.Module, image: Tensor, *, size: int, stride: int = 1, fill: float = 0.0) -> Tensor:
    """Probabilities (H', W', classes) of an image (C, H, W) of which a square is covered, for every place of the square.

    The square of `size` pixels (odd), filled with `fill` (0 is the mean colour of normalized images), is centred on every
    `stride`-th pixel; at the border only a part of it covers the image. Put the model in evaluation mode before.
    Raises `ValueError` for an even size.
    """
    if size % 2 == 0:
        raise ValueError(f"size={size}: a square around a pixel has an odd size")
    rows, columns = (torch.arange(0, length, stride) for length in image.shape[1:])
    down = (torch.arange(image.shape[1]) - rows[:, None]).abs() <= size // 2  # (H', H)
    across = (torch.arange(image.shape[2]) - columns[:, None]).abs() <= size // 2  # (W', W)
    holes = down[:, None, None, :, None] & across[None, :, None, None, :]  # (H', W', 1, H, W)
    covered = torch.where(holes, torch.as_tensor(fill, dtype=image.dtype), image).flatten(0, 1)
    with unchanged(named_modules(model), values=True):
        probabilities = torch.cat([model(batch).softmax(1) for batch in covered.split(256)])
    return probabilities.view(len(rows), len(columns), -1)


def aliased_share(filters: Tensor, stride: int, *, grid: int = 64) -> Tensor:
    """Of each filter (N, C, K, K): the share (N,) of its energy at frequencies that its own stride cannot represent.

    Samples that are `stride` pixels apart represent up to 1 / (2 stride) cycles a pixel along each axis; a pattern
    above that looks like a coarser one after sampling. The spectrum is computed on `grid` x `grid` frequencies.
    """
    energy = torch.fft.fft2(filters.float(), s=(grid, grid)).abs().square().sum(1)  # (N, grid, grid)
    low = torch.fft.fftfreq(grid).abs() <= 1 / (2 * stride)
    kept = energy[:, low][:, :, low].sum((1, 2))
    return 1 - kept / energy.sum((1, 2))
