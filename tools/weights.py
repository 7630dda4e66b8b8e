"""Weights for the book's pages and chapters, out of a checkpoint: half precision, with the channels' mean and deviation.

    python tools/weights.py "runs/degradation_30/resnet20, seed 0.pt" resnet20_cifar

Writes `data/weights/<name>.safetensors`. Batch norm's counters are left out; numbers of a channel stay in single precision.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from cnnlib.data import load
from cnnlib.train.checkpoint import load_checkpoint, tested_weights

FOLDER = Path(__file__).parents[1] / "data" / "weights"


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    state = load_checkpoint(sys.argv[1])
    mean, std = load(state["recipe"]["data"])[0].statistics()
    weights = {name: tensor.half() if tensor.dim() > 1 else tensor.float() for name, tensor in tested_weights(state).items()
               if tensor.is_floating_point()}
    weights = {name: tensor.contiguous() for name, tensor in {**weights, "mean": mean, "std": std}.items()}
    save_file(weights, FOLDER / f"{sys.argv[2]}.safetensors")
    print(FOLDER / f"{sys.argv[2]}.safetensors", f"{sum(tensor.nbytes for tensor in weights.values()):,} bytes, epoch {state['epoch']}")


if __name__ == "__main__":
    main()
