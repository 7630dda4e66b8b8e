"""Compress two networks that are trained here, as Han et al. did: prune, share values, code; bytes and accuracy after each step.

    python tools/experiments/compression.py

A network with large fully connected layers, pruned and quantized layer by layer as the paper did AlexNet (its Table 4), and
one with few parameters, treated as the SqueezeNet paper did its own: a third of the weights stays, 6 bits a weight. What is
stored is packed, unpacked again, and compared bit for bit; the last accuracy is that of the unpacked network. One seed.
Writes `data/results/compression.json`; a network that it holds already is not trained again.
"""

import dataclasses
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize

from cnnlib import create_model
from cnnlib.compression import compressible, pack, prune, share, sizes, unpack
from cnnlib.data import ImageSet
from cnnlib.train import Recipe, best_device, fit
from cnnlib.train.experiments import accuracy, hardware, read_record, write_record
from cnnlib.train.loop import load_data, make_batches, memory_format, predict

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "data" / "results" / "compression.json"
DESCRIPTION = "Small networks compressed by pruning, shared values and Huffman codes: bytes and accuracy after each step"
COMMON = Recipe(model="alexnet_cifar", data="cifar10", epochs=3, batch_size=128, lr=0.05, warmup_epochs=0.5, flip=True,
                precision="bfloat16")
# Fractions of weights that stay, and bits for each of them: Han et al. 2016, Table 4, CONV1 to FC8 of AlexNet.
ALEXNET_KEEP = (0.84, 0.38, 0.35, 0.37, 0.37, 0.09, 0.09, 0.25)
ALEXNET_BITS = (8, 8, 8, 8, 8, 5, 5, 5)
# Training, then training with what pruning left, then training of shared values. lr and schedule are ours.
PLANS = {
    "alexnet_cifar": dataclasses.replace(COMMON, model_args={"dropout": 0.0}),
    "squeezenet_cifar": dataclasses.replace(COMMON, model="squeezenet_cifar", train_images=10_000, epochs=4, batch_size=64, lr=0.1),
}
AFTER_PRUNING = {"epochs": 1, "lr": 0.01, "warmup_epochs": 0.0, "schedule": "linear"}
AFTER_SHARING = {"epochs": 1, "lr": 0.001, "warmup_epochs": 0.0, "schedule": "linear", "weight_decay": 0.0}


class Experiment:
    """One network on its way from trained to coded, and what is recorded of it."""

    def __init__(self, recipe: Recipe, data: tuple[ImageSet, ImageSet], device: torch.device):
        torch.manual_seed(recipe.seed)
        self.recipe, self.data, self.device = recipe, data, device
        self.model = create_model(recipe.model, **recipe.model_args).to(device)
        names = list(compressible(self.model))
        alexnet = recipe.model == "alexnet_cifar"
        self.keep = dict(zip(names, ALEXNET_KEEP if alexnet else len(names) * [1 / 3], strict=True))
        self.bits = dict(zip(names, ALEXNET_BITS if alexnet else len(names) * [6], strict=True))
        self.training, self.steps = [], []

    def train(self, **changes) -> None:
        recipe = dataclasses.replace(self.recipe, **changes)
        rows = list(fit(recipe, model=self.model, data=self.data, device=self.device))
        self.training.append({"recipe": recipe.to_dict(), "rows": rows})

    def tested(self, step: str, form: str) -> None:
        """Record bytes, if weights are stored in `form`, and accuracy; in float32, because that is what is stored."""
        size = sum(layer[form] for layer in self.layers().values()) + self.uncompressed()
        plain = dataclasses.replace(self.recipe, precision="float32")
        batches = make_batches(plain, self.data, self.device)[1]
        scores = predict(self.model.to(memory_format=memory_format(plain)), batches, plain.precision)
        self.steps.append({"step": step, "bytes": size, "accuracy": accuracy(*scores, 1)})
        print(self.recipe.model, self.steps[-1], flush=True)

    def layers(self) -> dict[str, dict[str, int]]:
        return {name: sizes(module.weight, self.bits[name]) for name, module in compressible(self.model).items()}

    def uncompressed(self) -> int:
        """Bytes of what is stored as it is: biases, and the numbers of batch normalization."""
        weights = sum(module.weight.numel() for module in compressible(self.model).values())
        with torch.device("meta"):
            plain = create_model(self.recipe.model, **self.recipe.model_args)
        stored = [tensor for tensor in plain.state_dict().values() if tensor.is_floating_point()]
        return 4 * (sum(tensor.numel() for tensor in stored) - weights)

    def run(self) -> dict:
        self.train()
        self.tested("trained", "dense")
        prune(self.model, self.keep)
        self.tested("pruned", "sparse")
        self.train(**AFTER_PRUNING)
        self.tested("pruned, trained on", "sparse")
        share(self.model, self.bits)
        self.tested("values shared", "shared")
        self.train(**AFTER_SHARING)
        self.tested("values shared, trained on", "shared")
        self.store_and_load()
        self.tested("Huffman coded, decoded", "coded")
        layers = {name: {"kept": int((module.weight != 0).sum()), "bits": self.bits[name], **self.layers()[name]}
                  for name, module in compressible(self.model).items()}
        return {
            "steps": self.steps, "layers": layers, "uncompressed_bytes": self.uncompressed(), "training": self.training,
            "params": sum(parameter.numel() for parameter in self.model.parameters()),
            "data": self.data[0].name, "train_images": self.recipe.train_images or len(self.data[0]),
            "test_images": len(self.data[1]), "hardware": hardware(self.device),
        }

    def store_and_load(self) -> None:
        """Bytes and back: the weights of the model become what `unpack` makes of what `pack` made of them."""
        for module in compressible(self.model).values():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
            read = unpack(pack(module.weight))
            if not torch.equal(read, module.weight.detach().cpu()):
                raise RuntimeError("the weights that were read are not those that were stored")
            module.weight = nn.Parameter(read.to(self.device))


def main():
    data = load_data(COMMON)
    done = read_record(TARGET, networks={})["networks"]
    for name, recipe in PLANS.items():
        if name not in done:
            done[name] = Experiment(recipe, data, best_device()).run()
            write_record(TARGET, {"description": DESCRIPTION, "networks": done})


if __name__ == "__main__":
    main()
