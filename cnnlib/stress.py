"""What a network does with images that are not like those of its training, and how much its probabilities are worth.

    answers = predict(model, batches)                              # scores of the images as they are
    worse = jpeg(images, quality=10)                               # bytes in, bytes out: the same images, spoilt
    fooled = adversarial(model, images, labels, epsilon=2, mean=mean, std=std)
    honest = (scores / temperature(held_out_scores, held_out_labels)).softmax(1)

All changes take and give images as bytes (N, C, H, W), so that a network meets them as it would meet a file.

- Guo, Pleiss, Sun, Weinberger. On Calibration of Modern Neural Networks. ICML 2017, arXiv:1706.04599.
- Goodfellow, Shlens, Szegedy. Explaining and Harnessing Adversarial Examples. ICLR 2015, arXiv:1412.6572.
- Hendrycks, Dietterich. Benchmarking Neural Network Robustness to Common Corruptions and Perturbations. ICLR 2019,
  arXiv:1903.12261.
"""

import io
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlib.arguments import check_classes
from cnnlib.running import evaluating


def _bytes(images: Tensor) -> Tensor:
    """`images`, if they are bytes (N, C, H, W). Raises `ValueError` otherwise."""
    if images.dtype != torch.uint8 or images.dim() != 4 or not images.numel():
        raise ValueError(f"images are {images.dtype} of shape {tuple(images.shape)}; they must be torch.uint8 of "
                         "(N, C, H, W), at least one")
    return images


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _checked(labels: Tensor, images: int, classes: int) -> Tensor:
    """`labels`, if they name one of the classes for each image. Raises `ValueError` otherwise."""
    if not isinstance(labels, Tensor) or labels.shape != (images,):
        found = f"of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise ValueError(f"labels are {found}; they must be whole numbers, one for each of {images} images")
    check_classes("labels", labels, classes)
    return labels


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value!r} must be a finite number above 0")
    return value


# --- changes ----------------------------------------------------------------------------------------------------------


def noise(images: Tensor, std: float, *, seed: int = 0) -> Tensor:
    """Gaussian noise of standard deviation `std`, in steps of 0 to 255, drawn on the CPU from `seed`."""
    drawn = torch.randn(_bytes(images).shape, generator=torch.Generator().manual_seed(seed))
    return _rounded(images + _positive("std", std) * drawn.to(images.device))


def blur(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur whose standard deviation is `sigma` pixels; edges are repeated."""
    radius = math.ceil(3 * _positive("sigma", sigma))
    weights = torch.exp(-(torch.arange(-radius, radius + 1, device=images.device) ** 2) / (2 * sigma**2))
    channels = _bytes(images).shape[1]
    kernel = (weights / weights.sum()).expand(channels, 1, -1)
    padded = F.pad(images.float(), [radius] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel[:, :, None, :], groups=channels)
    return _rounded(F.conv2d(rows, kernel[:, :, :, None], groups=channels))


def contrast(images: Tensor, factor: float) -> Tensor:
    """Each image drawn towards its own mean brightness (below 1), or away from it."""
    mean = _bytes(images).float().mean((1, 2, 3), keepdim=True)
    return _rounded(mean + _positive("factor", factor) * (images - mean))


def brightness(images: Tensor, shift: float) -> Tensor:
    """`shift`, in steps of 0 to 255, added to every pixel."""
    if not math.isfinite(shift):
        raise ValueError(f"shift={shift!r} must be a finite number")
    return _rounded(_bytes(images).float() + shift)


def coarse(images: Tensor, factor: float) -> Tensor:
    """The images at 1 / `factor` of their resolution, brought back to their size: what a smaller photograph still knows."""
    if not factor >= 1:
        raise ValueError(f"factor={factor!r} must be at least 1")
    size = _bytes(images).shape[2:]
    small = [max(1, round(side / factor)) for side in size]
    settings = {"mode": "bilinear", "antialias": True}
    return _rounded(F.interpolate(F.interpolate(images.float(), small, **settings), size, **settings))


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Each image written as JPEG of `quality` 1 to 95 and read again; of one or three channels, else `ValueError`."""
    from PIL import Image

    if quality not in range(1, 96):
        raise ValueError(f"quality={quality!r} must be a whole number from 1 to 95")
    if _bytes(images).shape[1] not in (1, 3):
        raise ValueError(f"images have {images.shape[1]} channels; JPEG takes 1 or 3")
    read = []
    for image in images.cpu():
        file = io.BytesIO()
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels.squeeze(2) if len(image) == 1 else pixels).save(file, "JPEG", quality=quality)
        with Image.open(file) as again:
            read.append(torch.frombuffer(bytearray(again.tobytes()), dtype=torch.uint8).view(*image.shape[1:], len(image)))
    return torch.stack(read).permute(0, 3, 1, 2).contiguous().to(images.device)


def adversarial(model: nn.Module, images: Tensor, labels: Tensor, *, epsilon: float, mean: Tensor, std: Tensor) -> Tensor:
    """One step of at most `epsilon` (of 255) for each pixel, in the direction in which the loss rises fastest.

    x + epsilon sign(dL/dx), the fast gradient sign method. `labels` (N) are what the images show; `mean` and `std`
    are those with which pixels from 0 to 1 are normalized, one for each channel. The network is left as it was, and so
    are its gradients. Raises `ValueError` for labels that name no class, and for a mean and std that do not fit.
    """
    _positive("epsilon", epsilon)
    place = {"device": images.device, "dtype": torch.float32}
    mean, std = (torch.as_tensor(values, **place).view(1, -1, 1, 1) for values in (mean, std))
    if not {mean.numel(), std.numel()} <= {1, _bytes(images).shape[1]} or not (std > 0).all():
        raise ValueError(f"mean={mean.flatten().tolist()} and std={std.flatten().tolist()} must be one number for each of "
                         f"{images.shape[1]} channels, std above 0")
    with evaluating(model), torch.enable_grad():
        pixels = (images.float() / 255).requires_grad_()
        scores = model((pixels - mean) / std)
        loss = F.cross_entropy(scores, _checked(labels, len(images), scores.shape[1]))
        (gradient,) = torch.autograd.grad(loss, pixels)
    return _rounded(images + epsilon * gradient.sign())


# --- what probabilities are worth -------------------------------------------------------------------------------------


def calibration(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> list[tuple[float, float, int]]:
    """For each range of confidence that occurs: (mean confidence, share of right answers, number of images).

    `probabilities` are (N, classes) with rows that sum to 1; confidence is that of the likeliest class. The `bins` ranges
    are of equal width. Raises `ValueError` for what are no probabilities, for labels that do not fit, and for fewer than
    one range.
    """
    if (probabilities < 0).any() or not torch.allclose(probabilities.sum(1), torch.ones(len(probabilities)), atol=1e-3):
        raise ValueError("rows of probabilities must be at least 0 and sum to 1; scores become so by softmax(1)")
    if bins != int(bins) or bins < 1:
        raise ValueError(f"bins={bins!r} must be a whole number of at least 1")
    confidence, answers = probabilities.double().max(1)
    right = (answers == _checked(labels, *probabilities.shape)).double()
    place = (confidence * bins).ceil().clamp(1, bins).long() - 1
    found = [place == i for i in range(bins)]
    return [(confidence[rows].mean().item(), right[rows].mean().item(), int(rows.sum())) for rows in found if rows.any()]


def calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> float:
    """The expected calibration error: the mean distance of confidence and accuracy over `calibration`'s ranges, weighted.

    Raises `ValueError` as `calibration`, and without an image.
    """
    if not len(labels):
        raise ValueError("there is no image; give probabilities and labels of some")
    return sum(count * abs(sure - right) for sure, right, count in calibration(probabilities, labels, bins=bins)) / len(labels)


def temperature(scores: Tensor, labels: Tensor) -> float:
    """The T for which softmax(scores / T) gives held-out `labels` (N) the highest likelihood; above 1 for boasters.

    The loss is convex in 1 / T, so its slope, E[mean score under the softmax] - E[score of the label], has one root, found by
    halving between T = 0.01 and 100. No answer changes: the order of scores stays. Raises `ValueError` where the best T
    lies outside, as it does if every answer is right, and for labels that do not fit.
    """
    scores = scores.double()
    own = scores.gather(1, _checked(labels, *scores.shape).view(-1, 1)).mean()

    def slope(inverse: float) -> float:
        return (((scores * inverse).softmax(1) * scores).sum(1).mean() - own).item()

    low, high = 0.01, 100.0  # of 1 / T
    if not slope(low) < 0 < slope(high):
        raise ValueError("no temperature from 0.01 to 100 fits best; more held-out images with some wrong answers are needed")
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / math.sqrt(low * high)
