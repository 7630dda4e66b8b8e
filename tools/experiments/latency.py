"""How long one image takes in every network, beside what it costs in multiply-adds; and what four guidelines are worth.

    python tools/experiments/latency.py                         the whole zoo, a quarter of an hour of a quiet machine
    python tools/experiments/latency.py --repeats 5 --only resnet18 mobilenet_v2

Batch 1, evaluation, float32, on the CPU, with as many threads as OMP_NUM_THREADS says; the network's own input size, random
weights, which do not matter for time. A network is timed `--repeats` times, a slow one as often as fits into `--seconds`, but at
least five times. Every tenth network is preceded by the same small control network: if its time drifts, so does everything
else. The second part repeats the controlled experiments of the ShuffleNetV2 paper (tables 1 to 4): blocks of equal
multiply-adds and unequal shape. Writes `data/results/latency.json`. Run it when nothing else runs.
"""

import argparse
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.data import load_table
from cnnlib.train.experiments import hardware, write_record
from cnnlib.train.inference import measure_inference

TARGET = Path(__file__).parents[2] / "data" / "results" / "latency.json"
DESCRIPTION = "Time of one image in evaluation mode: every network of the zoo, and blocks of equal multiply-adds"
CONTROL = "resnet20"
FEWEST = 5  # timed runs of a slow network
SIZE, BLOCKS = 56, 10  # of the maps, and in a stack, as in the paper


def timed(model: nn.Module, input_size: tuple[int, ...], repeats: int, seconds: float = math.inf) -> dict[str, object]:
    """`repeats` runs of one image, or as many as take `seconds`, at least `FEWEST`; two or more before do not count."""
    if seconds < math.inf:
        once = measure_inference(model, input_size, device="cpu", warmup=1, repeats=1).milliseconds / 1000
        repeats = min(repeats, max(FEWEST, int(seconds / once)))
    found = measure_inference(model, input_size, device="cpu", warmup=max(2, repeats // 5), repeats=repeats)
    return {"milliseconds": found.milliseconds, "quartiles": list(found.quartiles), "repeats": found.repeats,
            "memory": found.memory}


# --- blocks of equal multiply-adds ------------------------------------------------------------------------------------


def unequal_widths(first: int, second: int) -> nn.Module:
    """Guideline 1: two 1x1 convolutions, `first` channels to `second` and back."""
    return nn.Sequential(nn.Conv2d(first, second, 1), nn.Conv2d(second, first, 1))


def grouped(channels: int, groups: int) -> nn.Module:
    """Guideline 2: a 1x1 convolution in groups."""
    return nn.Conv2d(channels, channels, 1, groups=groups)


class Parallel(nn.Module):
    """Guideline 3: several 1x1 convolutions beside each other, added; (N, C, H, W) keeps its shape."""

    def __init__(self, channels: int, count: int):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(part(x) for part in self.parts)


def in_series(channels: int, count: int) -> nn.Module:
    """Guideline 3: several 1x1 convolutions one after the other."""
    return nn.Sequential(*(nn.Conv2d(channels, channels, 1) for _ in range(count)))


class WithElementwise(nn.Module):
    """Guideline 4: a bottleneck of 1x1, 3x3 and 1x1, with or without ReLU and shortcut; (N, C, H, W) keeps its shape."""

    def __init__(self, channels: int, relu: bool, shortcut: bool):
        super().__init__()
        width = channels // 4
        convolutions = nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, channels, 1)
        self.branch = nn.Sequential(*(layer for part in convolutions for layer in ([part, nn.ReLU()] if relu else [part])))
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch(x) + x if self.shortcut else self.branch(x)


GUIDELINES: dict[str, list[tuple[str, int, Callable[[], nn.Module]]]] = {  # label, channels of the input, a block
    "1: equal widths": [(f"{a} to {b}", a, lambda a=a, b=b: unequal_widths(a, b))
                        for a, b in ((128, 128), (90, 180), (52, 312), (36, 432))],
    "2: few groups": [(f"{groups} x {channels // groups}", channels, lambda c=channels, g=groups: grouped(c, g))
                      for groups, channels in ((1, 128), (2, 180), (4, 256), (8, 360))],
    "3: few fragments": [(label, channels, block) for label, channels, block in (
        ("one", 128, lambda: in_series(128, 1)),
        ("two in series", 90, lambda: in_series(90, 2)), ("four in series", 64, lambda: in_series(64, 4)),
        ("two in parallel", 90, lambda: Parallel(90, 2)), ("four in parallel", 64, lambda: Parallel(64, 4)))],
    "4: few elementwise operations": [(label, 128, lambda r=relu, s=shortcut: WithElementwise(128, r, s))
                                      for label, relu, shortcut in (
        ("neither", False, False), ("shortcut", False, True), ("ReLU", True, False), ("both", True, True))],
}


def measure_guideline(name: str, repeats: int) -> list[dict[str, object]]:
    """One row for each block of a guideline: a stack of ten, its multiply-adds, the values it moves, its time."""
    rows = []
    for label, channels, block in GUIDELINES[name]:
        stack = nn.Sequential(*(block() for _ in range(BLOCKS)))
        table = cost_table(stack.eval(), (channels, SIZE, SIZE))
        rows.append({"block": label, "macs": table.total.macs, "bytes_moved": table.total.bytes_moved,
                     **timed(stack, (channels, SIZE, SIZE), repeats)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=30, help="timed runs of each network (30)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for the timed runs of one network (2.0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks instead of all")
    parser.add_argument("--to", type=Path, default=TARGET, help="file to write (data/results/latency.json)")
    arguments = parser.parse_args()
    record = {"description": DESCRIPTION, "hardware": {**hardware(torch.device("cpu")), "system": platform.system(),
                                                       "load_at_start": os.getloadavg()[0]},
              "batch_size": 1, "precision": "float32", "repeats": arguments.repeats, "control": CONTROL,
              "control_milliseconds": [], "networks": {}, "guidelines": {}}
    for name in GUIDELINES:
        record["guidelines"][name] = measure_guideline(name, arguments.repeats)
    chosen = [row for row in load_table("zoo") if not arguments.only or row["name"] in arguments.only]
    for number, row in enumerate(chosen):
        if number % 10 == 0:
            control = timed(create_model(CONTROL), (3, 32, 32), 2 * arguments.repeats)
            record["control_milliseconds"].append(control["milliseconds"])
        input_size = tuple(map(int, row["input"].split("x")))
        record["networks"][row["name"]] = timed(
            create_model(row["name"]), input_size, arguments.repeats, arguments.seconds)
        print(row["name"], record["networks"][row["name"]], flush=True)
        write_record(arguments.to, record)
    record["hardware"]["load_at_end"] = os.getloadavg()[0]
    write_record(arguments.to, record)


if __name__ == "__main__":
    main()
