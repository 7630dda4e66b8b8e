"""Images per second of `cnnlib.train` beside a plain loop and a hand-written one, in turns within one run.

    python tools/benchmark_training.py                         resnet20 on CIFAR-sized images: CPU or GPU
    python tools/benchmark_training.py resnet18_cifar resnet50 --compile --json FILE

The contestants train the same network on the same images, with the same batch, crops and mirrors:

- plain: float32, a `DataLoader` with torchvision's transforms, one image at a time; no more than a first tutorial has;
- by hand: the recipe's own precision, memory format and fused optimizer, data on the device, everything written out;
- ours: `train_epoch` of the same recipe; with --compile ours compiled as well;
- no data (GPU only): the hand-written steps on one batch again and again: what is missing to it is waiting for data.

They take turns in short pieces, and medians count, so that a busy machine slows all of them alike. Rates at 224 pixels are
of images made on the spot. On a GPU the multiply-adds done are compared with a large matrix product measured beside them.
"""

import argparse
import dataclasses
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib import create_model, data
from cnnlib.analysis import cost_table
from cnnlib.registry import find_variant
from cnnlib.train import Recipe, best_device
from cnnlib.train.experiments import hardware
from cnnlib.train.inference import synchronize
from cnnlib.train.loop import make_batches, train_epoch
from cnnlib.train.run import Run
from cnnlib.vision import transforms_v2


def images_for(model: str, count: int) -> data.ImageSet:
    size = find_variant(model).input_size
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *size), dtype=torch.uint8, generator=draw)
    return data.ImageSet(images, torch.randint(10, (count,), generator=draw), tuple("0123456789"), "noise")


class Plain(torch.utils.data.Dataset):
    """What a first tutorial has: one image, transformed on its own."""

    def __init__(self, image_set: data.ImageSet):
        v2 = transforms_v2()
        size = image_set.images.shape[-1]
        self.images, self.labels = image_set.images, image_set.labels
        self.transform = v2.Compose([v2.RandomCrop(size, padding=4), v2.RandomHorizontalFlip(),
                                     v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return self.transform(self.images[row]), self.labels[row]


def plain_epoch(model, image_set, recipe, device, workers):
    """The loop that everyone writes first."""
    loader = torch.utils.data.DataLoader(Plain(image_set), recipe.batch_size, shuffle=True, drop_last=True,
                                         num_workers=workers, persistent_workers=workers > 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay)

    def epoch():
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def epoch_by_hand(model, image_set, recipe, device, *, data=True):
    """The recipe without the package: every line here does what one of its switches says."""
    model = model.to(memory_format=torch.channels_last)
    everything, labels = image_set.images.to(device), image_set.labels.to(device)
    size, count = everything.shape[-1], recipe.batch_size
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=0.9, weight_decay=recipe.weight_decay, fused=True)

    def batches():
        order = torch.randperm(len(labels), device=device)
        everyone = torch.arange(count, device=device)
        for number in range(len(labels) // count):
            rows = order[number * count : (number + 1) * count]
            windows = F.pad(everything[rows], (4, 4, 4, 4)).unfold(2, size, 1).unfold(3, size, 1)
            images = windows[everyone, :, torch.randint(9, (count,), device=device), torch.randint(9, (count,), device=device)]
            images = torch.where(torch.rand(count, 1, 1, 1, device=device) < 0.5, images.flip(3), images)
            images = images.float().mul_(1 / 64).add_(-2)
            yield images.contiguous(memory_format=torch.channels_last), labels[rows]

    def epoch():
        for images, targets in batches() if data else [next(batches())] * (len(labels) // count):
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def our_epoch(model, image_set, recipe, device):
    batches = make_batches(recipe, (image_set, image_set.first(10)), device)[0]
    run = Run(recipe, model, device)

    def epoch():
        run.begin_epoch()
        train_epoch(run, batches)

    return epoch


def peak_macs(device: torch.device, precision: str) -> float:
    """Multiply-adds per second of a large matrix product, the median of ten."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a = torch.randn(8192, 8192, device=device, dtype=dtype)
    times = []
    for _ in range(13):
        synchronize(device)
        start = time.perf_counter()
        a @ a
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 8192**3 / statistics.median(times[3:])


def compare(model: str, options: argparse.Namespace, device: torch.device) -> dict[str, object]:
    image_set = images_for(model, options.batch_size * options.batches)
    recipe = Recipe(model=model, batch_size=options.batch_size, crop=4, flip=True, precision=options.precision)

    def network() -> nn.Module:
        torch.manual_seed(0)
        return create_model(model, num_classes=10).to(device).train()

    contestants = {
        "plain": plain_epoch(network(), image_set, recipe, device, options.workers),
        "by hand": epoch_by_hand(network(), image_set, recipe, device),
        "ours": our_epoch(network(), image_set, recipe, device),
    }
    if options.compile:
        contestants["ours, compiled"] = our_epoch(network(), image_set, dataclasses.replace(recipe, compile=True), device)
    if device.type == "cuda":
        contestants["no data"] = epoch_by_hand(network(), image_set, recipe, device, data=False)
    times = {name: [] for name in contestants}
    for turn in range(options.turns + 1):
        for name, epoch in contestants.items():
            synchronize(device)
            start = time.perf_counter()
            epoch()
            synchronize(device)
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - start)

    images = options.batch_size * options.batches
    rates = {name: images / statistics.median(seconds) for name, seconds in times.items()}
    result = {"model": model, "batch_size": options.batch_size, "batches": options.batches, "turns": options.turns,
              "precision": options.precision, "images_per_second": rates,
              "ratio_to_plain": {name: _ratio(times["plain"], seconds) for name, seconds in times.items()},
              "ratio_to_hand": {name: _ratio(times["by hand"], seconds) for name, seconds in times.items()}}
    if device.type == "cuda":
        macs = 3 * cost_table(create_model(model, num_classes=10), find_variant(model).input_size).total.macs
        result["share_of_peak"] = rates["ours"] * macs / peak_macs(device, options.precision)
        result["share_waiting_for_data"] = max(0.0, 1 - rates["ours"] / rates["no data"])
    return result


def _ratio(reference: list[float], seconds: list[float]) -> float:
    """Median over the turns of how many times faster: neighbours in time are compared."""
    return statistics.median(a / b for a, b in zip(reference, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["resnet20"])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=10, help="in one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="of the plain loop's DataLoader")
    parser.add_argument("--precision", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", help="write the results there")
    options = parser.parse_args()
    device = best_device()
    results = []
    for model in options.models:
        results.append(compare(model, options, device))
        for key, value in results[-1].items():
            shown = {name: float(f"{number:.4g}") for name, number in value.items()} if isinstance(value, dict) else value
            print(f"{key}: {shown}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"hardware": hardware(device), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
