"""What the small numbers cost in which the book's pages fetch a network's weights.

    python tools/experiments/live_precision.py                          the networks for small images, on CIFAR-10's test images
    python tools/experiments/live_precision.py --photographs FOLDER     EfficientNet-Lite0, one photograph a class

Each network answers twice: as it was trained, and with its norms folded and its matrices rounded as `cnnlib.widgets.live` stores them.
FOLDER is that of `stress.py`; its photographs are training images of the network, so only the difference tells something.
Writes into `data/results/live_precision.json`.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.data import Batches, ImageSet, load
from cnnlib.running import predict
from cnnlib.shipping import fold_batch_norm
from cnnlib.train.experiments import accuracy, hardware, read_record, write_record
from cnnlib.widgets.follow import CIFAR10, offered, trained
from cnnlib.widgets.live import rounded
from stress import cropped, one_a_class

RECORD = Path(__file__).parents[2] / "data" / "results" / "live_precision.json"
DESCRIPTION = "Answers of the pages' networks with the weights that pages fetch, beside those in single precision"
IMAGES = 2000  # of CIFAR-10's test images


@torch.no_grad()
def as_on_the_page(model: nn.Module, size: tuple[int, int, int], precision: str) -> nn.Module:
    folded = fold_batch_norm(model, size)
    for module in folded.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.weight.copy_(rounded(module.weight, precision))
    return folded


def compare(name: str, images: ImageSet, batch_size: int) -> dict[str, object]:
    model, settings = trained(name)
    precision = settings.get("precision", "float16")
    batches = Batches(images, batch_size, mean=torch.tensor(settings["mean"]), std=torch.tensor(settings["std"]))
    forms = {"float32": model, precision: as_on_the_page(model, settings["input_size"], precision)}
    scores = {form: predict(network, batches)[0] for form, network in forms.items()}
    same = 100 * (scores["float32"].argmax(1) == scores[precision].argmax(1)).float().mean().item()
    return {"precision": precision, "images": len(images), "float32": accuracy(scores["float32"], images.labels, 1),
            "page": accuracy(scores[precision], images.labels, 1), "same_answer": same}


def animals(images: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """The images of some classes, labelled by their place among these."""
    places = torch.tensor([classes.index(name) if name in classes else -1 for name in CIFAR10])
    labels: Tensor = places[images.labels]
    return ImageSet(images.images[labels >= 0], labels[labels >= 0], classes, "some classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    options = parser.parse_args()
    record = read_record(RECORD, description=DESCRIPTION, networks={})
    networks = record["networks"]
    if options.photographs:
        networks["efficientnet_lite0"] = compare("efficientnet_lite0", cropped(one_a_class(options.photographs)), 50)
    else:
        test = load("cifar10")[1].first(IMAGES)
        for name in offered():
            if name != "efficientnet_lite0":
                classes = trained(name)[1]["classes"]
                networks[name] = compare(name, test if tuple(classes) == CIFAR10 else animals(test, tuple(classes)), 250)
                print(name, networks[name], flush=True)
    write_record(RECORD, {**record, "hardware": hardware(torch.device("cpu"))})


if __name__ == "__main__":
    main()
