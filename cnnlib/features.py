"""Features made by hand, as image recognition used them before networks learned their own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_histograms(images: Tensor, *, cell: int = 4, directions: int = 9) -> Tensor:
    """Histograms of gradient directions (HOG): (N, C, H, W) -> (N, features).

    Every cell of `cell` x `cell` pixels gets a histogram of the directions of its edges, modulo 180 degrees, weighted by their strength
    and divided between the two nearest of `directions` bins. Each block of 2x2 cells is scaled to length 1, which takes out
    contrast. Of several channels the one with the strongest edge counts. After Dalal and Triggs, Histograms of Oriented
    Gradients for Human Detection, CVPR 2005. Raises `ValueError` for images of fewer than 2x2 whole cells.
    """
    if min(images.shape[2:]) < 2 * cell:
        raise ValueError(f"images of {images.shape[2]}x{images.shape[3]} hold fewer than 2x2 cells of {cell}x{cell} pixels")
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


def linear_classifier(features: Tensor, labels: Tensor, classes: int, *, penalty: float = 1.0) -> Tensor:
    """Weights (features + 1, classes) of ridge regression to +1 for the own class and -1 for the others, in closed form.

    `penalty` is the weight of the squared length of the weights; the last row is the bias. Scores are
    `F.pad(features, (0, 1), value=1) @ weights`.
    """
    x = F.pad(features, (0, 1), value=1.0).double()
    targets = 2.0 * F.one_hot(labels, classes).double() - 1
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(gram, x.T @ targets).float()
