"""Train every member of the search space of `cnnlib.models.cell_search`, and record how well each one does.

    python tools/experiments/search_space.py              two seeds for each of the 125 cells, ten minutes or so of a core
    python tools/experiments/search_space.py --seeds 0    one seed

A member is trained on 6,400 images of CIFAR-10, in one pass. A search may look at its accuracy on 5,000 other training
images; its accuracy on the 10,000 test images is for the verdict. What `data/results/search_space.json` holds already is
not trained again, so the script can be stopped and started at any time.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from cnnlib.analysis import cost_table
from cnnlib.data import ImageSet, load
from cnnlib.models.cell_search import CellNetwork, Genotype, all_cells
from cnnlib.train import Recipe, fit
from cnnlib.train.experiments import accuracy, hardware, read_record, write_record
from cnnlib.train.loop import make_batches, memory_format, predict

TARGET = Path(__file__).parents[2] / "data" / "results" / "search_space.json"
TRAINING, VALIDATION = 6_400, 5_000
RECIPE = Recipe(model="CellNetwork", data="cifar10", train_images=TRAINING, epochs=1, batch_size=64, lr=0.1,
                weight_decay=5e-4, schedule="linear", warmup_epochs=0.2, flip=True, precision="bfloat16")


def train_member(
    cell: Genotype, seed: int, sets: tuple[ImageSet, ImageSet, ImageSet], recipe: Recipe = RECIPE
) -> dict[str, float]:
    """The result of one training: accuracies in percent, the mean training loss, and seconds of processor time."""
    start, recipe = time.process_time(), replace(recipe, seed=seed)
    device = torch.device("cpu")
    training, validation, test = sets
    torch.manual_seed(seed)
    model = CellNetwork(operations=cell)
    row = list(fit(recipe, model=model, data=(training, validation), device=device))[-1]
    test_batches = make_batches(recipe, (training, test), device)[1]
    logits, labels = predict(model.to(memory_format=memory_format(recipe)), test_batches, recipe.precision)
    return {"seed": seed, "train_loss": row["train_loss"], "validation_accuracy": row["test_accuracy"],
            "test_accuracy": accuracy(logits, labels, 1), "processor_seconds": time.process_time() - start}


def costs(cell: Genotype) -> dict[str, int]:
    """Parameters and multiply-adds of a member, for one image of 3 x 32 x 32."""
    with torch.device("meta"):
        total = cost_table(CellNetwork(operations=cell).eval(), (3, 32, 32)).total
    return {"params": total.params, "macs": total.macs}


def three_sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    """Images to train with, images that the search may look at, and test images."""
    train, test = load("cifar10")
    held_out = slice(TRAINING, TRAINING + VALIDATION)
    return train.first(TRAINING), replace(train, images=train.images[held_out], labels=train.labels[held_out]), test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = three_sets()
    record = read_record(TARGET, members={})
    if differ := RECIPE.differences(record.get("recipe", RECIPE.to_dict())):
        raise ValueError(f"{TARGET} was made with another recipe ({', '.join(differ)} differ); remove it first")
    record = {
        "description": "Every cell of cnnlib.models.cell_search, trained on CIFAR-10 by one recipe",
        "recipe": RECIPE.to_dict(), "data": sets[2].name, "train_images": TRAINING, "validation_images": VALIDATION,
        "test_images": len(sets[2]), "hardware": hardware(torch.device("cpu")), "members": record["members"],
    }
    for seed in options.seeds:
        for cell in all_cells():
            member = record["members"].setdefault(",".join(cell), {**costs(cell), "runs": []})
            if seed not in [run["seed"] for run in member["runs"]]:
                member["runs"].append(train_member(cell, seed, sets))
                write_record(TARGET, record)
                print(cell, member["runs"][-1], flush=True)


if __name__ == "__main__":
    main()
