"""What sharing weights, pooling and batch normalization buy: small networks on CIFAR-10, each with its own step size.

    python tools/experiments/components.py                  all networks; what is recorded already is not run again
    python tools/experiments/components.py --only "convolution, stride 2"

Three layers of 16, 32 and 64 maps and one fully connected layer. They differ in how a layer is connected (to everything; to
windows, with weights of their own or shared) and in how the maps are halved (stride, average, maximum). Each takes the step
size of `RATES` that was best on `HELD_OUT` training images in a run of `PROBE` epochs on the others; then `SEEDS` runs on all 10,000.
Writes `data/results/components.json`.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.analysis import cost_table
from cnnlib.train import Recipe, fit
from cnnlib.train.experiments import hardware, read_record, write_record
from cnnlib.train.loop import load_data

TARGET = Path(__file__).parents[2] / "data" / "results" / "components.json"
DESCRIPTION = "Fully connected, locally connected and convolutional networks, with strides, pooling and batch normalization"
RECIPE = Recipe(data="cifar10", train_images=10_000, epochs=10, batch_size=64, optimizer="adamw", flip=True, precision="bfloat16")
RATES, PROBE, HELD_OUT, SEEDS = (0.001, 0.003, 0.01, 0.03), 2, 2_000, 3
WIDTHS = (16, 32, 64)


class LocallyConnected(nn.Module):
    """A 3x3 convolution of stride 2 whose weights are not shared: (N, C, size, size) -> (N, out_channels, size/2, size/2)."""

    def __init__(self, in_channels: int, out_channels: int, size: int):
        super().__init__()
        self.size, places = size // 2, (size // 2) ** 2
        bound = (9 * in_channels) ** -0.5  # as PyTorch starts a convolution
        self.weight = nn.Parameter(torch.empty(places, out_channels, 9 * in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels, places).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = F.unfold(x, 3, padding=1, stride=2)  # (N, 9 C, places)
        return (torch.einsum("nkp,pok->nop", windows, self.weight) + self.bias).unflatten(2, (self.size, self.size))


def fully_connected(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.ReLU(), nn.Linear(width, 10))


def three_layers(layer: Callable[[int, int, int], list[nn.Module]]) -> nn.Module:
    """`layer(in_channels, out_channels, size)` three times, the size halved by each, and one fully connected layer."""
    layers, channels, size = [], 3, 32
    for width in WIDTHS:
        layers += layer(channels, width, size)
        channels, size = width, size // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size**2, 10))


def convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "fully connected": lambda: fully_connected(11),
    "fully connected, wide": lambda: fully_connected(256),
    "windows, weights not shared": lambda: three_layers(lambda i, o, size: [LocallyConnected(i, o, size), nn.ReLU()]),
    "convolution, stride 2": lambda: three_layers(lambda i, o, _: [convolution(i, o, 2), nn.ReLU()]),
    "convolution, average pooling": lambda: three_layers(lambda i, o, _: [convolution(i, o), nn.ReLU(), nn.AvgPool2d(2)]),
    "convolution, max pooling": lambda: three_layers(lambda i, o, _: [convolution(i, o), nn.ReLU(), nn.MaxPool2d(2)]),
    "max pooling, batch normalization": lambda: three_layers(
        lambda i, o, _: [convolution(i, o), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]),
}


def measure(build: Callable[[], nn.Module], data) -> dict:
    train, test = data
    rows = torch.arange(len(train))
    probe_data = train.rows(rows[:-HELD_OUT]), train.rows(rows[-HELD_OUT:])

    def run(recipe: Recipe, sets) -> list[dict]:
        torch.manual_seed(recipe.seed)
        return list(fit(recipe, model=build(), data=sets))

    rates = {rate: run(dataclasses.replace(RECIPE, lr=rate, epochs=PROBE), probe_data)[-1]["test_accuracy"] for rate in RATES}
    best = max(rates, key=rates.get)
    runs = [run(dataclasses.replace(RECIPE, lr=best, seed=seed), data) for seed in range(SEEDS)]
    total = cost_table(build(), (3, 32, 32)).total
    return {"parameters": total.params, "macs": total.macs, "held_out_accuracy": {str(rate): value for rate, value in rates.items()},
            "lr": best, "rows": runs, "test_accuracy": [rows[-1]["test_accuracy"] for rows in runs]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    only = parser.parse_args().only
    train, test = load_data(RECIPE)
    data = train.first(RECIPE.train_images), test
    recipe = {key: value for key, value in dataclasses.asdict(RECIPE).items() if key not in ("model", "model_args", "lr", "seed")}
    start = {"description": DESCRIPTION, "data": data[0].name, "train_images": len(data[0]), "test_images": len(data[1]),
             "hardware": hardware(torch.device("cpu")), "recipe": recipe, "runs": {}}
    for name, build in NETWORKS.items():
        if name in only and name not in read_record(TARGET, **start)["runs"]:
            entry = measure(build, data)
            print(name, entry["lr"], entry["test_accuracy"], flush=True)
            record = read_record(TARGET, **start)  # another network may have been added meanwhile
            write_record(TARGET, {**record, "runs": {**record["runs"], name: entry}})


if __name__ == "__main__":
    main()
