"""What auxiliary heads add to the gradients of a small GoogLeNet, with batch normalization and without.

    python tools/experiments/auxiliary_gradients.py 0 1 2      # seeds; what is recorded already is skipped

Four kinds of run for each seed: `googlenet_cifar`, narrowed to a quarter of GoogLeNet, with and without batch normalization,
its two auxiliary losses at the paper's weight of 0.3 and at 0. With one seed the runs start from the same weights, see the
same batches and drop the same units. After every step the norm of the gradient is taken, part by part, over the weights of
convolutions and linear layers.
Writes `data/results/auxiliary_gradients.json`: for every run the recipe, one row an epoch, and under `gradients` the norms
of the first step and their means over consecutive windows of steps.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib import create_model
from cnnlib.models.googlenet import TABLE, GoogLeNet, Inception
from cnnlib.train import Recipe, fit
from cnnlib.train.experiments import read_record, run_record, write_record
from cnnlib.train.loop import Data, best_device, load_data

TARGET = Path(__file__).resolve().parents[2] / "data/results/auxiliary_gradients.json"
DESCRIPTION = "GoogLeNet in small-image form: size of the gradient in every module, with and without auxiliary losses"
WINDOW = 5  # steps
TEST_IMAGES = 2_000
NORMS = {"no normalization": None, "batch normalization": "batch"}
WEIGHTS = {"auxiliary losses": 0.3, "no auxiliary losses": 0.0}
COMMON = dict(
    model="googlenet_cifar", data="cifar10", train_images=6_400, epochs=1, batch_size=64, lr=0.02, schedule="constant",
    flip=True, precision="bfloat16",
)


def recipes(seeds: Sequence[int]) -> dict[str, Recipe]:
    """The recipe of every run, by its name."""
    return {
        f"{norm_name}, {weight_name}, seed {seed}": Recipe(
            **COMMON, seed=seed, aux_weight=weight, model_args={
                "norm": norm, "initialization": "caffe", "width_mult": 0.25})
        for seed in seeds for norm_name, norm in NORMS.items() for weight_name, weight in WEIGHTS.items()
    }


def trunk(model: GoogLeNet) -> dict[str, nn.Module]:
    """The parts of the trunk in order: stem, the modules by the names of the paper's Table 1, head."""
    modules = (block for stage in model.stages for block in stage if isinstance(block, Inception))
    return {"stem": model.stem, **dict(zip(TABLE, modules, strict=True)), "head": model.head}


def gradient_norms(model: GoogLeNet) -> Tensor:
    """The norm of the gradient of each part's weights; biases and norms are left out."""
    return torch.stack([torch.cat([p.grad.flatten() for p in part.parameters() if p.dim() > 1]).norm()
                        for part in trunk(model).values()])


def train(recipe: Recipe, data: Data, device: torch.device) -> dict[str, object]:
    """Rows of the run, and gradient norms averaged over windows of steps."""
    torch.manual_seed(recipe.seed)
    model, norms = create_model(recipe.model, **recipe.model_args), []

    def watch(batches: Iterable, row: dict) -> Iterator:
        for batch in batches:
            yield batch
            norms.append(gradient_norms(model).cpu())  # the step is done, its gradients are still there

    rows = list(fit(recipe, model=model, data=data, device=device, progress=watch))
    windows = torch.stack(norms).split(WINDOW)
    return {"rows": rows, "gradients": {
        "parts": list(trunk(model)), "first_step": norms[0].tolist(),
        "norms": [window.mean(0).tolist() for window in windows if len(window) == WINDOW],
    }}


def main(seeds: Sequence[int]) -> None:
    device = best_device()
    train_set, test_set = load_data(Recipe(**COMMON))
    data = train_set, test_set.first(TEST_IMAGES)
    for name, recipe in recipes(seeds).items():
        if name in begun()["runs"]:
            continue
        result = train(recipe, data, device)
        print(name, {key: round(value, 3) for key, value in result["rows"][-1].items()}, flush=True)
        record = begun()  # another process may have added to it meanwhile
        record["runs"][name] = run_record(recipe, data, device, **result)
        write_record(TARGET, record)


def begun() -> dict:
    return {"description": DESCRIPTION, "window": WINDOW, **read_record(TARGET, runs={})}


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0])
