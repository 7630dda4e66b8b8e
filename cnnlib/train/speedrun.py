"""A speed run: small images learned in as few operations as public records have found, in one file, on a GPU or a CPU.

    python -m cnnlib.train.speedrun --data cifar10 --epochs 10
    python -m cnnlib.train.speedrun --data cifar10 --epochs 8 --muon --batch-size 2000

Everything serves one end: fewer epochs. A first layer that need not be learned, since it only whitens patches; convolutions that
start as the identity; pooling early, right after the first convolution of a block; batch norm without scales, whose biases
learn 64 times as fast; a smoothed loss; every image mirrored in every second epoch; a rate that rises for a quarter of the
run and then falls; slow weights that follow the fast ones and pull them back; and six views of each test image.

- Jordan. 94% on CIFAR-10 in 3.29 Seconds on a Single GPU. 2024, arXiv:2404.00498; his scripts airbench94 and airbench94_muon.
- Page. How to Train Your ResNet, 2018-2019: the whitened first layer.
- Jordan et al. Muon: An optimizer for hidden layers in neural networks, 2024: `torch.optim.Muon` (PyTorch 2.9 and later).

**Differs from airbench94:** mixed precision by the hardware with weights in float32, where all of his network is in half
precision; batches of 512, not 1,024, for processors; no compiling; slow weights and the first layer's bias keep their share
of the run (3 of 9.9 epochs) when it is shorter.
"""

import argparse
import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlib.data import ImageSet, load
from cnnlib.running import autocast, best_device, choose_precision

EPOCHS, BATCH = 9.9, 512
RATE, MOMENTUM, DECAY = 11.5, 0.85, 0.0153  # rate and decay for 1,024 images, whatever the momentum
BIAS_RATE = 64.0  # of batch norm's biases, as a multiple
SMOOTHING, SHIFT = 0.2, 2  # of the targets; of the images, in pixels
EARLY = 3 / EPOCHS  # share of the run in which the first layer's bias learns, and after which there are slow weights
SLOW_EVERY, SLOW_KEEP = 5, 0.95  # steps; what slow weights keep of themselves a step at the end of the run
MUON_RATE, MUON_BIAS, MUON_DECAY, MUON_BATCH = 0.24, 0.053, 2e-6, 2000  # for batches of MUON_BATCH
MUON_HEAD = 0.67 * (9 / 256) ** 2  # his head divides its outputs by 256, ours by 9


# --- network ----------------------------------------------------------------------------------------------------------


class Convolution(nn.Module):
    """A 3x3 convolution that begins as the identity on its first channels; its weight is a matrix, as Muon wants it."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        weight = torch.empty(out_channels, in_channels, 3, 3)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        nn.init.dirac_(weight[:in_channels])
        self.weight = nn.Parameter(weight.permute(0, 2, 3, 1).flatten(1))  # channels last

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.view(len(self.weight), 3, 3, -1).permute(0, 3, 1, 2)
        return F.conv2d(x, kernel, padding=1)


class Norm(nn.BatchNorm2d):
    """Batch norm with a bias, without a scale, and with quick statistics."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad_(False)


class Block(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            Convolution(in_channels, out_channels), nn.MaxPool2d(2), Norm(out_channels), nn.GELU(),
            Convolution(out_channels, out_channels), Norm(out_channels), nn.GELU(),
        )


class SpeedNet(nn.Module):
    """(N, 3, 32, 32) -> (N, classes): a whitening 2x2 convolution, three blocks, the maximum, a linear layer."""

    def __init__(self, classes: int = 10, widths: tuple[int, int, int] = (64, 256, 256)):
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(self.whiten.bias)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip((24, *widths), widths)))
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.whiten(x))
        return self.head(self.blocks(x).amax((2, 3))) / 9


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: Tensor, eps: float = 5e-4) -> None:
    """Let the layer give, of normalized images, the principal components of 2x2 patches at variance 1, and their negatives."""
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + eps).sqrt()).T.flip(0).view(12, 3, 2, 2)
    layer.weight.copy_(torch.cat([filters, -filters]))


# --- images -----------------------------------------------------------------------------------------------------------


class Images:
    """A set on the device; batches are shifted by up to SHIFT pixels, and mirrored in every second epoch."""

    def __init__(self, images: ImageSet, mean: Tensor, std: Tensor, device: torch.device, seed: int):
        self.mean, self.std = (values.view(-1, 1, 1).to(device) for values in (mean, std))
        self.padded = F.pad(images.images.to(device).float(), 4 * (SHIFT,), mode="reflect").byte()
        self.labels, self.generator = images.labels.to(device), torch.Generator().manual_seed(seed)
        self.mirrored = torch.randint(2, (len(images),), generator=self.generator).bool()

    def normalized(self, images: Tensor) -> Tensor:
        return ((images.float() / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def plain(self, rows: slice | Tensor) -> Tensor:
        return self.normalized(self.padded[rows, :, SHIFT:-SHIFT, SHIFT:-SHIFT])

    def epoch(self, number: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        count, device = len(self.labels), self.labels.device
        size = self.padded.shape[-1] - 2 * SHIFT
        windows = self.padded.unfold(2, size, 1).unfold(3, size, 1)
        order = torch.randperm(count, generator=self.generator)
        shifts = torch.randint(2 * SHIFT + 1, (2, count), generator=self.generator)
        plan = torch.stack([order, *shifts, self.mirrored[order] ^ (number % 2 == 1)]).to(device)
        for rows, down, along, mirror in plan.split(batch_size, dim=1)[: count // batch_size]:
            images = self.normalized(windows[rows, :, down, along])
            yield torch.where(mirror.bool().view(-1, 1, 1, 1), images.flip(3), images), self.labels[rows]


# --- training ---------------------------------------------------------------------------------------------------------


def triangle(done: float) -> float:
    """The rate as a share of its peak after this share of the run: 0.2, then 1 at 0.23, then 0.07."""
    return 0.2 + 0.8 * done / 0.23 if done < 0.23 else 1 - 0.93 * (done - 0.23) / 0.77


def make_optimizers(model: SpeedNet, batch_size: int, *, muon: bool) -> list[torch.optim.Optimizer]:
    """SGD for all, or Muon for the blocks' convolutions and SGD for the rest; losses are sums over a batch."""
    kernels = [module.weight for module in model.modules() if isinstance(module, Convolution)]
    biases = [module.bias for module in model.modules() if isinstance(module, Norm)]
    others = [model.whiten.bias, model.head.weight]
    if not muon:
        scale = 1024 * (1 + 1 / (1 - MOMENTUM))  # how far a constant gradient moves a weight
        rate, decay = RATE / scale, DECAY * batch_size / scale
        groups = [{"params": biases, "lr": BIAS_RATE * rate, "weight_decay": decay / (BIAS_RATE * rate)},
                  {"params": kernels + others, "lr": rate, "weight_decay": decay / rate}]
        return [torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True, fused=True)]
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(f"muon needs torch.optim.Muon, of PyTorch 2.9 and later; this is {torch.__version__}")
    scale = batch_size / MUON_BATCH
    groups = [{"params": members, "lr": rate * scale, "weight_decay": MUON_DECAY * batch_size / (rate * scale)}
              for members, rate in ((biases + others[:1], MUON_BIAS), (others[1:], MUON_HEAD))]
    return [torch.optim.SGD(groups, lr=MUON_BIAS, momentum=MOMENTUM, nesterov=True, fused=True),
            torch.optim.Muon(kernels, lr=MUON_RATE * math.sqrt(scale), momentum=0.6, weight_decay=0.0)]


class SlowWeights:
    """Weights and statistics that follow the network's, which then start from them again (after Zhang et al. 2019, Lookahead)."""

    def __init__(self, model: nn.Module):
        self.fast = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        self.slow = [tensor.clone() for tensor in self.fast]

    @torch.no_grad()
    def update(self, keep: float) -> None:
        torch._foreach_lerp_(self.slow, self.fast, 1 - keep)
        torch._foreach_copy_(self.fast, self.slow)


def speedrun(
    train_set: ImageSet, test_set: ImageSet, *, epochs: float = EPOCHS, batch_size: int = BATCH, seed: int = 0, muon: bool = False,
    widths: tuple[int, int, int] = (64, 256, 256), device: torch.device | str | None = None, precision: str = "auto",
) -> Iterator[dict[str, float]]:
    """Train, and yield after every epoch `epoch, lr, train_loss, train_accuracy, seconds`; the last row has the test's, too.

    `seconds` counts training alone, with what prepares it. `test_accuracy` is of one view, `views_accuracy` of six.
    Raises `ValueError` for a batch size that exceeds the set, for a length that is not positive, and for images that are not 32x32.
    """
    if not 1 <= batch_size <= len(train_set) or not epochs > 0:
        raise ValueError(f"epochs={epochs!r} must be positive, and batch_size={batch_size!r} 1 to {len(train_set)}")
    if train_set.images.shape[1:] != (3, 32, 32):
        raise ValueError(f"images must be 3 x 32 x 32, not {' x '.join(map(str, train_set.images.shape[1:]))}")
    device = torch.device(device) if device is not None else best_device()
    precision, _ = choose_precision(precision, device)
    torch.manual_seed(seed)
    model = SpeedNet(len(train_set.classes), widths).to(device, memory_format=torch.channels_last)
    statistics = train_set.statistics()

    start = time.perf_counter()
    images = Images(train_set, *statistics, device, seed)
    whiten(model.whiten, images.plain(slice(5000)))
    optimizers, slow = make_optimizers(model, batch_size, muon=muon), None
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    steps_an_epoch = len(train_set) // batch_size
    steps, step, spent = math.ceil(epochs * steps_an_epoch), 0, 0.0
    for epoch in range(math.ceil(epochs)):
        sums, seen = torch.zeros(2, device=device), 0
        model.train()
        for batch, labels in images.epoch(epoch, batch_size):
            model.whiten.bias.requires_grad_(step < EARLY * steps)
            share = 1 - step / steps if muon else triangle(step / steps)
            for group, peak in groups:
                group["lr"] = peak * share
            with autocast(precision, device):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING, reduction="sum")
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            if muon:  # only the direction of a kernel matters before a norm: keep its length
                with torch.no_grad():
                    for kernel in optimizers[1].param_groups[0]["params"]:
                        kernel.mul_(math.sqrt(len(kernel)) / kernel.norm())
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            if step >= EARLY * steps and step % SLOW_EVERY == 0 and not muon:
                slow = slow or SlowWeights(model)
                slow.update(SLOW_KEEP**SLOW_EVERY * (step / steps) ** 3)
            sums, seen = sums + torch.stack([loss.detach(), (logits.argmax(1) == labels).sum()]), seen + len(labels)
            if step == steps:
                break
        if slow:
            slow.update(1.0)  # the epoch ends with the slow weights
        loss, correct = sums.tolist()
        spent += time.perf_counter() - start
        row = {"epoch": epoch + 1, "lr": groups[-1][0]["lr"], "train_loss": loss / seen, "train_accuracy": 100 * correct / seen,
               "seconds": spent}
        if step == steps:
            row |= test(model, Images(test_set, *statistics, device, 0), precision)
        if not math.isfinite(row["train_loss"]):
            raise ValueError(f"the training loss is not a number in epoch {epoch + 1}")
        yield row
        start, spent = time.perf_counter(), 0.0


@torch.no_grad()
def test(model: nn.Module, images: Images, precision: str) -> dict[str, float]:
    """Accuracy in percent of one view, and of six: the image and its mirror image, in place and moved by a pixel each way."""
    model.eval()

    def logits_of(views: Tensor) -> Tensor:
        with autocast(precision, views.device):
            return model(views).float()

    right = torch.zeros(2, device=images.labels.device)
    for rows in torch.arange(len(images.labels), device=images.labels.device).split(500):
        views = images.plain(rows)
        moved = F.pad(views, (1, 1, 1, 1), mode="reflect")
        one = logits_of(views)
        six = (one + logits_of(views.flip(3))) / 4
        for view in (moved[:, :, :-2, :-2], moved[:, :, 2:, 2:]):
            six = six + (logits_of(view) + logits_of(view.flip(3))) / 8
        right += torch.stack([(scores.argmax(1) == images.labels[rows]).sum() for scores in (one, six)])
    one, six = (100 * right / len(images.labels)).tolist()
    return {"test_accuracy": one, "views_accuracy": six}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m cnnlib.train.speedrun", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="a set of 32x32 images: cifar10, shapes, folder:PATH (default: cifar10)")
    parser.add_argument("--epochs", type=float, default=EPOCHS, help=f"may be a fraction (default: {EPOCHS})")
    parser.add_argument("--batch-size", type=int, default=BATCH, help=f"default: {BATCH}")
    parser.add_argument("--train-images", type=int, default=0, help="use only so many training images; 0 means all")
    parser.add_argument("--widths", type=int, nargs=3, default=(64, 256, 256), help="channels of the blocks (default: 64 256 256)")
    parser.add_argument("--muon", action="store_true", help="Muon for the convolutions of the blocks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, mps; the best there is if not given")
    options = parser.parse_args(arguments)
    try:
        train_set, test_set = load(options.data)
        if options.train_images:
            train_set = train_set.first(options.train_images)
        print(choose_precision("auto", torch.device(options.device) if options.device else best_device())[1])
        for row in speedrun(train_set, test_set, epochs=options.epochs, batch_size=options.batch_size, seed=options.seed,
                            muon=options.muon, widths=tuple(options.widths), device=options.device):
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
