"""Growing a deep VGG from a shallow one, as its paper did before anything better was known.

    python tools/experiments/vgg_growth.py

Configuration A starts from small random weights; D does not; D started from trained layers of A may. The networks are the
small-image forms, but each layer gets the signal that it had in the paper: the paper gave its networks pixels of 0 to 255
less their mean, where `fit` divides by the standard deviation, and weights of deviation 0.01 for layers of the paper's
width. So images are multiplied by 64, and a layer with fewer inputs than in the paper gets weights that are larger by the root
of the ratio. One seed. Writes `data/results/vgg_growth.json`, which also holds what every layer is given before training.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import signals
from cnnlib.models.vgg import VGG, grow
from cnnlib.train import Recipe, best_device, fit
from cnnlib.train.experiments import run_record, write_record
from cnnlib.train.loop import load_data, make_batches

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(model="vgg16_cifar", model_args={"dropout": 0.0}, data="cifar10", train_images=10_000, epochs=2, batch_size=64,
                lr=0.02, schedule="constant", precision="bfloat16")
DESCRIPTION = "Configurations A and D of VGG from small random weights, and D started from the trained layers of A"
TEST_IMAGES = 2_000
PIXEL_DEVIATION, WEIGHT_DEVIATION = 64.0, 0.01
FULL_SIZE = {"vgg11_cifar": "vgg11", "vgg16_cifar": "vgg16"}


class Scale(nn.Module):
    """Multiply by a constant; keeps the shape."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


@torch.no_grad()
def as_in_the_paper(name: str) -> VGG:
    """The small form `name` from small random weights, with the signal of the full-size network in every layer."""
    torch.manual_seed(RECIPE.seed)
    model = create_model(name, **RECIPE.model_args)
    model.stem = Scale(PIXEL_DEVIATION)
    with torch.device("meta"):
        full = create_model(FULL_SIZE[name])
    for layer, large in zip(layers(model), layers(full), strict=True):
        inputs, more = layer.weight[0].numel(), large.weight[0].numel()
        layer.weight.normal_(std=WEIGHT_DEVIATION * (more / inputs) ** 0.5)
        layer.bias.zero_()
    return model


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def main():
    data = load_data(RECIPE)
    data = data[0], data[1].first(TEST_IMAGES)
    device = best_device()
    images, labels = next(iter(make_batches(RECIPE, data, device)[1]))
    record = {"description": DESCRIPTION, "runs": {}}
    trained: dict[str, VGG] = {}

    def run(label: str, name: str, start: Callable[[], VGG]) -> None:
        model = start().to(device)
        recipe = dataclasses.replace(RECIPE, model=name)
        before = [vars(signal) for signal in signals(model, images, labels)]
        rows = []
        for row in fit(recipe, model=model, data=data, device=device):
            rows.append(row)
            print(f"{label}: " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
        trained[label] = model
        params = sum(p.numel() for p in model.parameters())
        record["runs"][label] = run_record(recipe, data, device, params=params, signals=before, rows=rows)
        write_record(ROOT / "data" / "results" / "vgg_growth.json", record)

    run("A", "vgg11_cifar", lambda: as_in_the_paper("vgg11_cifar"))
    run("D", "vgg16_cifar", lambda: as_in_the_paper("vgg16_cifar"))
    for convolutions in (4, 8):
        run(f"D grown from A, {convolutions} convolutions", "vgg16_cifar",
            lambda: grow(as_in_the_paper("vgg16_cifar"), trained["A"], convolutions))


if __name__ == "__main__":
    main()
