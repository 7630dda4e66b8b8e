"""Features made by hand, as before networks learned their own, and the linear classifier on top of any features."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnlib.arguments import check_classes

PENALTIES = tuple(10.0**k for k in range(6))


def gradient_histograms(images: Tensor, *, cell: int = 4, directions: int = 9) -> Tensor:
    """Histograms of gradient directions (HOG): (N, C, H, W) -> (N, features).

    Every cell of `cell` x `cell` pixels gets a histogram of the directions of its edges, modulo 180 degrees, weighted
    by their strength and divided between the two nearest of `directions` bins. Each block of 2x2 cells is scaled to
    length 1, which takes out contrast. Of several channels the one with the strongest edge counts. After Dalal and
    Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005. Raises `ValueError` for images of fewer
    than 2x2 whole cells.
    """
    if min(images.shape[2:]) < 2 * cell:
        raise ValueError(f"images of {images.shape[2]}x{images.shape[3]} hold fewer than 2x2 cells of {cell}x{cell} "
                         f"pixels")
    padded = F.pad(images.float(), (1, 1, 1, 1), mode="replicate")
    dx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    dy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    strength, channel = (dx**2 + dy**2).sqrt().max(1, keepdim=True)
    dx, dy = dx.gather(1, channel), dy.gather(1, channel)
    place = (torch.atan2(dy, dx) % math.pi) / math.pi * directions  # (N, 1, H, W), 0 to `directions`
    centres = torch.arange(directions, device=images.device).view(1, -1, 1, 1)
    distance = ((place - centres + directions / 2) % directions - directions / 2).abs()  # around the circle
    votes = strength * (1 - distance).clamp(min=0)  # (N, directions, H, W)
    cells = F.avg_pool2d(votes, cell)
    blocks = torch.cat([cells[:, :, i:i - 1 or None, j:j - 1 or None] for i in (0, 1) for j in (0, 1)], 1)
    return F.normalize(blocks, dim=1, eps=1e-3).flatten(1)


@dataclass(frozen=True)
class LinearProbe:
    """Scores (N, classes) = ((features - mean) / scale) @ weights + bias; `penalty` is the one that was chosen.

    `error` is its mean squared error on images left out, one at a time: comparable between features of the same images.
    """

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor
    penalty: float
    error: float

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale @ self.weights + self.bias


def linear_probe(
    features: Tensor, labels: Tensor, classes: int, *, penalties: tuple[float, ...] = PENALTIES
) -> LinearProbe:
    """Ridge regression from features (N, F) to +1 for the own class and -1 for the others.

    Features are standardized. Of `penalties` (on the squared length of the weights), the one with the smallest
    squared error on images left out, one at a time, is taken; all in closed form from one decomposition, on the CPU
    in double precision. It needs no step size and no test image. Raises `ValueError` for fewer than two images, and
    for labels that are not below `classes`.
    """
    if len(features) < 2 or len(features) != len(labels):
        raise ValueError(f"{len(features)} rows of features and {len(labels)} labels: at least 2 of each are needed, "
                         f"as many as the others")
    check_classes("labels", labels, classes)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x = ((features - mean) / scale).cpu().double()
    targets = 2.0 * F.one_hot(labels.cpu().long(), classes).double() - 1
    bias = targets.mean(0)
    # z = U S of the singular value decomposition U S V', from the smaller of two square matrices
    if len(x) > x.shape[1]:
        squares, v = torch.linalg.eigh(x.T @ x)
        z = x @ v
    else:
        squares, u = torch.linalg.eigh(x @ x.T)
        z = u * squares.clamp(min=0).sqrt()
    coordinates = z.T @ (targets - bias)

    def residual_of(penalty: float) -> Tensor:
        return targets - bias - z / (squares + penalty) @ coordinates

    def left_out_error(penalty: float) -> float:
        leverage = (z**2 / (squares + penalty)).sum(1) + 1 / len(x)
        return (residual_of(penalty) / (1 - leverage)[:, None]).square().mean().item()

    errors = {penalty: left_out_error(penalty) for penalty in penalties}
    penalty = min(errors, key=errors.get)
    weights = x.T @ residual_of(penalty) / penalty  # where the gradient of the penalized error is 0
    device = features.device
    return LinearProbe(mean, scale, weights.float().to(device), bias.float().to(device), penalty, errors[penalty])
