"""What arranged convolutions (`cnnlib/arranged.py`) bring in a training step, for every network of the Imagenette benchmark.

    python tools/experiments/arranged_steps.py                      writes data/results/arranged_steps.json
    python tools/experiments/arranged_steps.py --only resnet18      prints only; ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 imitates
                                                                    a processor that has bfloat16, but no AMX

Steps as PyTorch does them and arranged ones take turns; times are of the processor, on one thread.
"""

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

import torch

from cnnlib.arranged import ProcessorConvolutions
from cnnlib.train.experiments import hardware, read_plan, write_record
from step_times import BATCH, Stepper

ROOT = Path(__file__).parents[2]
ROUNDS = 5


def milliseconds(recipe, side: int) -> dict[str, float]:
    """The lowest of some rounds for a step (forward, loss, backward, update) in bfloat16, channels last: plain and arranged."""
    stepper, modes = Stepper(recipe, side, num_classes=10), {"plain": nullcontext, "arranged": ProcessorConvolutions}
    rounds = [{name: 1000 * stepper.step(mode) for name, mode in modes.items()} for _ in range(1 + ROUNDS)]
    return {name: min(times[name] for times in rounds[1:]) for name in modes}  # the first one allocates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="these networks, printed and not recorded")
    options = parser.parse_args()
    torch.set_num_threads(1)
    probes = read_plan(ROOT / "data/experiments/imagenette_probes.toml", "cpu").recipes
    networks = {name.partition(", lr")[0]: recipe for name, recipe in probes.items()}
    rows = []
    for name, recipe in networks.items():
        if options.only is None or name in options.only:
            rows.append({"network": name, **milliseconds(recipe, recipe.image_size)})
            print("{network}: {plain:.0f} ms plain, {arranged:.0f} ms arranged".format(**rows[-1]), flush=True)
    if options.only is None:
        write_record(ROOT / "data/results/arranged_steps.json", {
            "description": f"Milliseconds of processor time of a training step of {BATCH} photographs of 96 pixels in bfloat16, "
                           f"one thread: convolutions as PyTorch does them, and arranged; the lowest of {ROUNDS} in turns",
            "hardware": hardware(torch.device("cpu")), "instructions": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"), "rows": rows})


if __name__ == "__main__":
    main()
