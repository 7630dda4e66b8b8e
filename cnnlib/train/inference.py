"""Time and memory of a network that is used, not trained."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cnnlib.analysis.watch import LiveBytes
from cnnlib.running import autocast, choose_precision, evaluating, name_of


@dataclass(frozen=True)
class Inference:
    """One forward pass of a batch, measured: milliseconds as median and quartiles; `memory` in bytes.

    `memory` is the peak of what a run takes on top of the network's own `weights`: on a GPU all that its allocator
    gives, elsewhere the tensors that operations make, without the working space inside of them.
    """

    device: str
    precision: str
    batch_size: int
    milliseconds: float
    quartiles: tuple[float, float]
    repeats: int
    weights: int
    memory: int

    @property
    def images_per_second(self) -> float:
        return 1000 * self.batch_size / self.milliseconds

    def __repr__(self) -> str:
        low, high = self.quartiles
        return (f"{self.milliseconds:.3g} ms for {self.batch_size} image{'s' * (self.batch_size > 1)} (half of {self.repeats} "
                f"runs within {low:.3g} to {high:.3g}), {self.images_per_second:,.4g} images/s, "
                f"{self.memory / 2**20:,.3g} MiB beside {self.weights / 2**20:,.3g} MiB of weights; "
                f"{self.device}, {self.precision}")


@torch.no_grad()
def measure_inference(
    model: nn.Module,
    input_size: Sequence[int] = (3, 224, 224),
    *,
    batch_size: int = 1,
    device: torch.device | str | None = None,
    precision: str = "float32",
    channels_last: bool = True,
    compile: bool = False,
    warmup: int = 3,
    repeats: int = 20,
) -> Inference:
    """Latency, throughput and memory of `model` for images of `input_size` (C, H, W), in evaluation mode.

    The first `warmup` runs do not count; every other is timed by itself, and waits for the device to finish. `device` is
    where the network is, if not given; otherwise the network moves there, and stays. Raises `ValueError` for counts
    that are not positive and for an unknown precision.
    """
    if min(batch_size, warmup, repeats) < 1:
        raise ValueError(f"batch_size={batch_size}, warmup={warmup}, repeats={repeats}: all must be positive")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = torch.device(device) if device is not None else next(model.parameters()).device
    precision, _ = choose_precision(precision, device)
    model = model.to(device, memory_format=layout)
    images = torch.randn(batch_size, *input_size, device=device).contiguous(memory_format=layout)
    network = torch.compile(model, dynamic=False) if compile else model
    with evaluating(model), autocast(precision, device):
        for _ in range(warmup):
            network(images)
        times = sorted(_seconds(network, images) * 1000 for _ in range(repeats))
        memory = _peak(network if device.type == "cuda" else model, images)
    low, _, high = statistics.quantiles(times, n=4) if repeats > 1 else (times * 3)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    name = name_of(device) if device.type == "cuda" else device.type
    return Inference(name, precision, batch_size, statistics.median(times), (low, high), repeats, weights, memory)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was told to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _seconds(network: nn.Module, images: torch.Tensor) -> float:
    synchronize(images.device)
    start = time.perf_counter()
    network(images)
    synchronize(images.device)
    return time.perf_counter() - start


def _peak(network: nn.Module, images: torch.Tensor) -> int:
    """Most bytes that one run holds at a time, above what was held before; without a GPU, those of tensors."""
    if images.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(images.device)
        before = torch.cuda.memory_allocated(images.device)
        network(images)
        synchronize(images.device)
        return torch.cuda.max_memory_allocated(images.device) - before
    with LiveBytes([]) as live:
        network(images)
    return live.peak
