"""Processor time of one training step for every network of the controlled benchmark.

    python tools/experiments/step_times.py        writes data/results/step_times.json

Networks take turns in rounds, so that a machine that slows down does so for all; times are of the processor, on one thread, so that
other processes count little. The step is the benchmark's: forward, loss, backward, update by AdamW, in bfloat16, channels last.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F

from cnnlib import create_model
from cnnlib.train.experiments import hardware, read_experiment, write_record

ROOT = Path(__file__).parents[2]
BATCH, ROUNDS = 64, 5


class Stepper:
    """The network of a recipe with its optimizer and one batch of random images of `side` pixels."""

    def __init__(self, recipe, side: int = 32, **changes):
        torch.manual_seed(0)
        self.model = create_model(recipe.model, **recipe.model_args, **changes).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-3, fused=True)
        self.images = torch.randn(BATCH, 3, side, side).to(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (BATCH,))
        self.step()  # the first one allocates

    def step(self, mode: Callable[[], AbstractContextManager] = nullcontext) -> float:
        """Seconds of processor time; the forward pass is in a context of this mode as well."""
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16), mode():
            outputs = self.model(self.images)
        heads = [outputs] if isinstance(outputs, torch.Tensor) else [head for head in outputs if head is not None]
        sum(F.cross_entropy(head.float(), self.labels) for head in heads).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    recipes = read_experiment(ROOT / "data/experiments/benchmark.toml")[1]
    names = {run.partition(", seed")[0]: recipe for run, recipe in recipes.items()}
    steppers = {name: Stepper(recipe) for name, recipe in names.items()}
    times = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, stepper in steppers.items():
            times[name].append(1000 * stepper.step() / BATCH)
    write_record(ROOT / "data/results/step_times.json", {
        "description": f"Milliseconds of processor time for one image of a training step, batches of {BATCH}, bfloat16, one thread; "
                       f"the median of {ROUNDS} rounds, the lowest and the highest", "hardware": hardware(torch.device("cpu")),
        "rows": [{"network": name, "milliseconds": statistics.median(values), "lowest": min(values), "highest": max(values)}
                 for name, values in times.items()]})


if __name__ == "__main__":
    main()
