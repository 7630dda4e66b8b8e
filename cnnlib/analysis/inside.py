"""What a trained network looks at: strongest responses, projections back to pixels, Grad-CAM, occlusion, aliased filters.

Each is one call, for any network. Which layer? Where none is named, the last maps before the head: `last_maps`.

- Zeiler, Fergus. Visualizing and Understanding Convolutional Networks. ECCV 2014, arXiv:1311.2901.
- Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra. Grad-CAM: Visual Explanations from Deep Networks via
  Gradient-based Localization. ICCV 2017, arXiv:1610.02391.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .watch import outputs_of, unchanged

# ReLU and its smooth relatives: what comes out is positive, or nearly nothing.
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish)


def last_maps(model: nn.Module) -> str:
    """The name of the layer to look into where no other is named: the last stage, whose maps the head reads.

    Later layers know more of the classes, and have only coarser places to say where. Raises `ValueError` for a model
    without stages.
    """
    stages = getattr(model, "stages", None)
    if not isinstance(stages, nn.Sequential) or not len(stages):
        children = ", ".join(repr(name) for name, _ in model.named_children())
        raise ValueError(f"{type(model).__name__} has no stages; name the layer: one of {children}, or a part of them")
    return f"stages.{len(stages) - 1}"


def _maps(model: nn.Module, layer: str | None, images: Tensor, *others: str) -> tuple[Tensor, ...]:
    """What `layer`, by default `last_maps(model)`, gives out: maps (N, C, H, W); and the outputs of other layers."""
    layer = last_maps(model) if layer is None else layer
    caught = outputs_of(model, [layer, *others], images)
    maps = caught[layer]
    if maps.dim() != 4:
        raise ValueError(f"layer {layer!r} gives out a tensor of shape {tuple(maps.shape)}, not maps (N, C, H, W)")
    return (maps, *(caught[name] for name in others))


@torch.no_grad()
def strongest_responses(
    model: nn.Module, layer: str | None, images: Tensor, *, batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """For each image and channel of a layer's maps: the largest value (N, C), and its row and column (N, C, 2).

    `layer=None` means `last_maps(model)`. Raises `ValueError` for a layer that gives out no maps.
    """
    values, places = [], []
    for batch in images.split(batch_size):
        [maps] = _maps(model, layer, batch)
        value, place = maps.flatten(2).max(2)
        values.append(value)
        places.append(torch.stack((place // maps.shape[3], place % maps.shape[3]), dim=2))
    return torch.cat(values), torch.cat(places)


class RectifiedBothWays(torch.autograd.Function):
    """An activation whose backward pass rectifies what comes back, instead of asking where the input was positive."""

    @staticmethod
    def forward(ctx, x: Tensor, activation: Callable[[Tensor], Tensor] = torch.relu) -> Tensor:
        return activation(x)

    @staticmethod
    def backward(ctx, signal: Tensor) -> tuple[Tensor, None]:
        return signal.relu(), None


@contextmanager
def rectifying(model: nn.Module) -> Iterator[int]:
    """Within this context every module of `RECTIFIERS` goes back as `RectifiedBothWays`; yields how many there are."""
    modules = [module for module in model.modules() if isinstance(module, RECTIFIERS)]
    with unchanged(model.named_modules()):
        for module in modules:
            activation = copy.copy(module)
            activation.inplace = False
            module.forward = lambda x, activation=activation: RectifiedBothWays.apply(x, activation)
        yield len(modules)


def deconvolve(model: nn.Module, layer: str | None, images: Tensor, units: Tensor | None = None) -> Tensor:
    """Project one unit of a layer's maps back to the pixels of each image, as a deconvnet does: (N, C, H, W).

    `units` (N, 3) names channel, row and column for each image, by default the strongest one; `layer=None` means
    `last_maps(model)`. A deconvnet unpools through the places of the maxima, rectifies, and filters with the transposed
    weights. Unpooling and filtering are what the backward pass of pooling and convolution does already (Simonyan, Vedaldi,
    Zisserman 2014, section 4); only the backward pass of ReLU is replaced, and of its smooth relatives. Normalizations,
    gates and attention pass their ordinary gradient. Put the model in evaluation mode before. Raises `ValueError` for a
    model without such a module, a layer that gives out no maps, and units that it does not have.
    """
    images = images.detach().clone().requires_grad_()
    with rectifying(model) as count, torch.enable_grad():
        if not count:
            raise ValueError(f"{type(model).__name__} has none of the modules that a deconvnet goes back through in its "
                             f"own way: {', '.join(kind.__name__ for kind in RECTIFIERS)}")
        [maps] = _maps(model, layer, images)
        if units is None:
            units = torch.stack(torch.unravel_index(maps.flatten(1).argmax(1), maps.shape[1:]), dim=1)
        limit = torch.tensor(maps.shape[1:])
        if units.shape != (len(images), 3) or bool(((units.cpu() < 0) | (units.cpu() >= limit)).any()):
            raise ValueError(f"units={units.tolist()} must be a channel, row and column of {tuple(maps.shape[1:])} for each "
                             f"of {len(images)} images")
        channel, row, column = units.unbind(1)
        chosen = maps[torch.arange(len(images)), channel, row, column]
        projection, = torch.autograd.grad(chosen, images, grad_outputs=chosen.detach())
    return projection


def grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor | Sequence[int] | None = None, *, layer: str | None = None
) -> Tensor:
    """Where in each image the network saw a class: (N, H', W'), as large as the layer's maps, nowhere negative.

    relu(sum_k a_k A_k): the layer's maps A_k, each weighted by the gradient of the class's score with respect to it,
    averaged over its places. `classes` names one class for each image, by default the most probable one; `layer` is by
    default `last_maps(model)`. Put the model in evaluation mode before. Raises `ValueError` for a class that the
    network does not have and for a layer that gives out no maps.
    """
    with torch.enable_grad():
        maps, scores = _maps(model, layer, images.detach().clone().requires_grad_(), "")
    classes = scores.argmax(1) if classes is None else torch.as_tensor(classes, device=scores.device)
    if classes.shape != scores.shape[:1] or classes.min() < 0 or classes.max() >= scores.shape[1]:
        raise ValueError(f"classes={classes.tolist()} must name one of {scores.shape[1]} classes for each of {len(images)} "
                         "images")
    with torch.enable_grad():
        gradient, = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), maps)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach()


@torch.no_grad()
def occlusion_map(model: nn.Module, image: Tensor, *, size: int, stride: int = 1, fill: float = 0.0) -> Tensor:
    """Probabilities (H', W', classes) of an image (C, H, W) of which a square is covered, for every place of the square.

    The square of `size` pixels (odd), filled with `fill` (0 is the mean colour of normalized images), is centred on every
    `stride`-th pixel; at the border only a part of it covers the image. Put the model in evaluation mode before.
    Raises `ValueError` for an even size, a stride below 1, and for several images.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size={size}: a square around a pixel has an odd size")
    if stride < 1:
        raise ValueError(f"stride={stride} must be at least 1")
    if image.dim() != 3:
        raise ValueError(f"image of shape {tuple(image.shape)} must be one image (C, H, W)")
    rows, columns = (torch.arange(0, length, stride) for length in image.shape[1:])
    down = (torch.arange(image.shape[1]) - rows[:, None]).abs() <= size // 2  # (H', H)
    across = (torch.arange(image.shape[2]) - columns[:, None]).abs() <= size // 2  # (W', W)
    holes = down[:, None, None, :, None] & across[None, :, None, None, :]  # (H', W', 1, H, W)
    covered = torch.where(holes, torch.as_tensor(fill, dtype=image.dtype), image).flatten(0, 1)
    with unchanged(model.named_modules(), values=True):
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
