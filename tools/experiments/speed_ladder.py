"""The ladder of training speed: resnet20 on CIFAR-10's images, each rung one change added to the one below.

    python tools/experiments/speed_ladder.py                # the numbers of the book: one CPU thread, about three minutes
    python tools/experiments/speed_ladder.py --data shapes --no-compile --turns 2        # a trial

The rungs take turns in short pieces. On a CPU processor time counts, which other processes on the machine disturb less than
the clock's; on a GPU the clock, after the device has finished. Beside the rungs:

- `phases`: where the time of one step goes, for the plain loop and for the rung before compilation;
- `compilation`: what the first batches cost above later ones, compilers that PyTorch starts included (CPU only);
- `matrix_product`: multiply-adds per second of a large product, the practical limit of the same processor.

Writes `data/results/speed_ladder.json`.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional as F

from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.data import ImageSet, load
from cnnlib.registry import find_variant
from cnnlib.train import Recipe, best_device
from cnnlib.train.experiments import hardware, write_record
from cnnlib.train.inference import synchronize
from cnnlib.train.loop import autocast, make_batches, memory_format
from cnnlib.train.optimization import make_optimizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from benchmark_training import Plain, our_epoch, plain_epoch  # noqa: E402  (the folder is no package)

TARGET = ROOT / "data/results/speed_ladder.json"
MODEL, IMAGES, BATCH, LARGE_BATCH = "resnet20", 512, 128, 512
SLOW = dict(model=MODEL, batch_size=BATCH, crop=4, flip=True, precision="float32", channels_last=False, fused=False)
RUNGS = {  # name -> what it changes; the first rung is the plain loop, which has no recipe
    "plain loop": {},
    "data on the device": {},
    "channels-last": {"channels_last": True},
    "bfloat16": {"precision": "bfloat16"},
    "fused optimizer": {"fused": True},
    "torch.compile": {"compile": True},
    f"batch {LARGE_BATCH}": {"batch_size": LARGE_BATCH},
}


def clock(device: torch.device) -> float:
    """Seconds: of this process on a CPU, of the wall on a device that works by itself."""
    synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def with_compilers() -> float:
    """Processor seconds of this process and of the finished processes that it started."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ladder(images: ImageSet, device: torch.device, compile: bool) -> dict[str, Callable[[], object]]:
    """One epoch of every rung, as a function; all start from the same weights."""
    epochs, fields = {}, dict(SLOW)
    for name, change in RUNGS.items():
        fields |= change
        if fields.get("compile") and not compile:
            fields["compile"] = False
            if "compile" in change:
                continue
        torch.manual_seed(0)
        model = create_model(MODEL).to(device).train()
        make = plain_epoch if name == "plain loop" else our_epoch
        epochs[name] = make(model, images, Recipe(**fields), device, *([0] if make is plain_epoch else []))
    return epochs


def take_turns(epochs: dict[str, Callable], device: torch.device, turns: int) -> tuple[dict, dict]:
    """Seconds per image of every turn, and the seconds that the first batches of each rung took."""
    times, first = {name: [] for name in epochs}, {}
    for turn in range(turns + 1):
        for name, epoch in epochs.items():
            start, whole = clock(device), with_compilers()
            epoch()
            if turn:
                times[name].append((clock(device) - start) / IMAGES)
            else:
                first[name] = with_compilers() - whole
    return times, first


class Phases:
    """Seconds by name, each part of a step timed on its own."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = clock(self.device)
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + clock(self.device) - start


def phases(images: ImageSet, recipe: Recipe, device: torch.device, plain: bool) -> dict[str, float]:
    """Seconds per image of getting a batch, forward, backward and update; the median over the steps of two epochs."""
    torch.manual_seed(0)
    model = create_model(MODEL).to(device, memory_format=memory_format(recipe)).train()
    optimizer = make_optimizer(model, recipe)
    ours = make_batches(recipe, (images, images.first(10)), device)[0]
    loader = torch.utils.data.DataLoader(Plain(images), recipe.batch_size, shuffle=True, drop_last=True)
    steps = []
    for _ in range(2):
        batches = iter(loader if plain else ours)
        for _ in range(len(images) // recipe.batch_size):
            phase = Phases(device)
            with phase("data"):
                pixels, labels = (tensor.to(device) for tensor in next(batches))
                pixels = pixels.contiguous(memory_format=memory_format(recipe))
            with phase("forward"), autocast(recipe.precision, device):
                loss = F.cross_entropy(model(pixels), labels)
            with phase("backward"):
                optimizer.zero_grad()
                loss.backward()
            with phase("update"):
                optimizer.step()
            steps.append(phase.seconds)
    return {name: statistics.median(step[name] for step in steps[1:]) / recipe.batch_size for name in steps[0]}


def matrix_product(precision: str, device: torch.device, size: int) -> float:
    """Multiply-adds per second of a product of two matrices (size, size), the median of seven."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, precision))
    times = []
    for _ in range(9):
        start = clock(device)
        a @ a
        times.append(clock(device) - start)
    return size**3 / statistics.median(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--output", type=Path, default=TARGET)
    options = parser.parse_args()
    device = best_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()  # an earlier run's programs would hide what compiling costs
    whole = load(options.data)[0]
    images = whole.first(IMAGES)

    epochs = ladder(images, device, options.compile)
    times, first = take_turns(epochs, device, options.turns)
    compilation = {name: seconds - IMAGES * statistics.median(times[name])
                   for name, seconds in first.items() if RUNGS[name].get("compile")}
    steps = {
        "plain loop": phases(images, Recipe(**SLOW), device, plain=True),
        "fused optimizer": phases(images, Recipe(**SLOW | {"channels_last": True, "precision": "bfloat16", "fused": True}),
                                  device, plain=False),
    }
    macs = cost_table(create_model(MODEL), find_variant(MODEL).input_size).total.macs
    write_record(options.output, {
        "description": "The ladder of training speed: seconds for an image, each rung added to the one below; "
                       + ("processor time" if device.type == "cpu" else "time by the clock"),
        "model": MODEL, "data": whole.name, "batch_size": BATCH, "images_per_turn": IMAGES, "turns": options.turns,
        "clock": "processor time" if device.type == "cpu" else "wall time", "macs_per_image": macs,
        "rungs": {name: {"changes": RUNGS[name], "seconds_per_image": times[name]} for name in times},
        "compilation": compilation, "phases": steps,
        "matrix_product": {precision: matrix_product(precision, device, 1024 if device.type == "cpu" else 8192)
                           for precision in ("float32", "bfloat16")},
        "hardware": hardware(device),
    })
    for name in times:
        print(f"{name}: {statistics.median(a / b for a, b in zip(times['plain loop'], times[name])):.3g} times the plain loop")


if __name__ == "__main__":
    main()
