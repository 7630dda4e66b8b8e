"""The speed run's curve of accuracy against operations, and what each of its ingredients brings.

    python tools/experiments/speed_ingredients.py                        all runs; what is recorded already is not run again
    python tools/experiments/speed_ingredients.py --only "8.3 epochs"    some of them
    python tools/experiments/speed_ingredients.py --speed                images per second instead, on an otherwise idle machine

Trains `cnnlib.train.speedrun` on all of CIFAR-10: for `LENGTHS` with `SEEDS` each, and, for the first of them, with Muon and with one
ingredient left out at a time (`INGREDIENTS`). Accuracies do not depend on what else the machine does, times do; so a run's
`processor_seconds` are of all threads, and the record's `images_per_second` comes from `--speed` with all cores.
Writes `data/results/speed_ingredients.json`.
"""

import argparse
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlib.analysis import cost_table
from cnnlib.data import load
from cnnlib.train import speedrun as run
from cnnlib.train.checkpoint import only_writer
from cnnlib.train.experiments import hardware, read_record, write_record

TARGET = Path(__file__).parents[2] / "data" / "results" / "speed_ingredients.json"
DESCRIPTION = "The speed run of cnnlib/train/speedrun.py: accuracy against operations, and with one ingredient left out at a time"
LENGTHS, SEEDS = (8.3, 17.8, 4.0), 3  # epochs; the first two are what two cores do in 7 and in 15 minutes
TIMED_IMAGES = 10_240


class RandomFlips(run.Images):
    """Each image is mirrored or not by a coin in every epoch."""

    def epoch(self, number: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.mirrored = torch.randint(2, self.mirrored.shape, generator=self.generator).bool()
        yield from super().epoch(number, batch_size)


class LatePooling(nn.Sequential):
    """A block that pools after its second convolution."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            run.Convolution(in_channels, out_channels), run.Norm(out_channels), nn.GELU(),
            run.Convolution(out_channels, out_channels), nn.MaxPool2d(2), run.Norm(out_channels), nn.GELU(),
        )


def random_first_layer(layer: nn.Conv2d, images: Tensor) -> None:
    """Keep the filters as they were drawn, in pairs of opposite sign and brought to outputs of variance 1 on average."""
    with torch.no_grad():
        layer.weight[12:] = -layer.weight[:12]
        layer.weight /= F.conv2d(images, layer.weight).std()


INGREDIENTS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "whitened first layer": lambda: mock.patch.object(run, "whiten", random_first_layer),
    "start as the identity": lambda: mock.patch("torch.nn.init.dirac_", lambda weight: weight),
    "early pooling": lambda: mock.patch.object(run, "Block", LatePooling),
    "quick biases of batch norm": lambda: mock.patch.object(run, "BIAS_RATE", 1.0),
    "smoothed labels": lambda: mock.patch.object(run, "SMOOTHING", 0.0),
    "mirrored in every second epoch": lambda: mock.patch.object(run, "Images", RandomFlips),
    "slow weights": lambda: mock.patch.object(run, "SLOW_EVERY", 10**9),
    "a rate that rises first": lambda: mock.patch.object(run, "triangle", lambda done: 1 - 0.93 * done),
}


def runs() -> dict[str, tuple[float, int, dict, Callable[[], contextlib.AbstractContextManager]]]:
    """By name: epochs, seeds, further arguments of `speedrun`, and what is patched."""
    whole, first = contextlib.nullcontext, LENGTHS[0]
    lengths = {f"{epochs} epochs": (epochs, SEEDS, {}, whole) for epochs in LENGTHS}
    muon = {f"{first} epochs, Muon": (first, SEEDS, {"muon": True}, whole)}
    return lengths | muon | {f"{first} epochs without: {name}": (first, 1, {}, left_out) for name, left_out in INGREDIENTS.items()}


def measure(data, epochs: float, seed: int, arguments: dict) -> dict:
    """One training: its rows and processor seconds; multiply-adds of the forward passes of the images it saw."""
    start = time.process_time()
    rows = list(run.speedrun(*data, epochs=epochs, seed=seed, **arguments))
    images = math.ceil(epochs * (len(data[0]) // run.BATCH)) * run.BATCH
    macs = cost_table(run.SpeedNet(), (3, 32, 32)).total.macs
    return {"seed": seed, "processor_seconds": time.process_time() - start, "images": images, "macs": images * macs, "rows": rows}


def add(entry: Callable[[dict], dict], start: dict) -> None:
    with only_writer(TARGET, wait_seconds=60):
        write_record(TARGET, entry(read_record(TARGET, **start)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=runs(), default=list(runs()))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="at most so many of each")
    parser.add_argument("--speed", action="store_true", help="images per second of training with all threads")
    options = parser.parse_args()
    data = load("cifar10")
    start = {"description": DESCRIPTION, "data": data[0].name, "train_images": len(data[0]), "test_images": len(data[1]),
             "hardware": hardware(torch.device("cpu")), "runs": {}}
    if options.speed:
        few = data[0].first(TIMED_IMAGES), data[1].first(100)
        [*_, last] = run.speedrun(*few, epochs=2)
        speed = {"threads": torch.get_num_threads(), "images_per_second": TIMED_IMAGES / last["seconds"], "load": os.getloadavg()[0]}
        print(speed)
        add(lambda record: {**record, "speed": speed}, start)
        return
    for name in options.only:
        epochs, seeds, arguments, left_out = runs()[name]
        for seed in range(min(seeds, options.seeds)):
            if any(done["seed"] == seed for done in read_record(TARGET, **start)["runs"].get(name, [])):
                continue
            with left_out():
                entry = measure(data, epochs, seed, arguments)
            print(name, entry["rows"][-1], flush=True)
            add(lambda record: {**record, "runs": {**record["runs"], name: [*record["runs"].get(name, []), entry]}}, start)


if __name__ == "__main__":
    main()
