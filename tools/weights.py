"""Weights for the book's pages and chapters, out of a checkpoint: half precision, with the channels' mean and deviation.

    python tools/weights.py "runs/degradation_30/resnet20, seed 0.pt" resnet20_cifar
    python tools/weights.py runs/live/googlenet_cifar.pt googlenet_cifar --without aux1 aux2

Writes `data/weights/<name>.safetensors`. Batch norm's counters are left out, and modules that only training needs, if they are named;
numbers of a channel stay in single precision.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from cnnlib.data import load
from cnnlib.train.checkpoint import load_checkpoint, tested_weights

FOLDER = Path(__file__).parents[1] / "data" / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name")
    parser.add_argument("--without", nargs="+", default=[], metavar="MODULE", help="modules that are left out")
    options = parser.parse_args()
    state = load_checkpoint(options.checkpoint)
    mean, std = load(state["recipe"]["data"])[0].statistics()
    weights = {name: tensor.half() if tensor.dim() > 1 else tensor.float() for name, tensor in tested_weights(state).items()
               if tensor.is_floating_point() and name.partition(".")[0] not in options.without}
    weights = {name: tensor.contiguous() for name, tensor in {**weights, "mean": mean, "std": std}.items()}
    target = FOLDER / f"{options.name}.safetensors"
    save_file(weights, target)
    print(target, f"{sum(tensor.nbytes for tensor in weights.values()):,} bytes, epoch {state['epoch']}")


if __name__ == "__main__":
    main()
