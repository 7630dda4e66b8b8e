"""Transfer from ImageNet: linear probe, fine-tuning and training from scratch as data shrink.

    python tools/experiments/transfer_imagenet.py                                    some hours of two processor cores
    python tools/experiments/transfer_imagenet.py --output mine.json --seeds 1 --counts 10 100

EfficientNet-Lite0 with its authors' weights (`weights="IMAGENET1K"`, from a Python package, offline) tells the ten
classes of CIFAR-10 apart, photographs that it has not seen, scaled to 96 pixels, from 10 to 1,000 of each class.
Everything that is chosen is chosen on a fifth of the training images of seed 0, held out, and then stays for all seeds
and for the test: the layer of the probe, and the step sizes of fine-tuning and of training from scratch, each from
three; the choices are recorded with their accuracies. Test accuracies are of the 2,000 first test images. One
record, `data/results/transfer_imagenet.json`, or
the one that you name, written after every run; what is recorded is skipped, so that a run may be cut off.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnlib import create_model
from cnnlib.data import ImageSet, load
from cnnlib.running import best_device, choose_precision
from cnnlib.train.experiments import accuracy, hardware, read_record, write_record
from cnnlib.transfer import features_at, few, fine_tune, linear_probe, normalized, on_validation, scores

RECORD = Path(__file__).parents[2] / "data" / "results" / "transfer_imagenet.json"
NETWORK, SIZE = "efficientnet_lite0", 96
STEPS = {10: 150, 30: 200, 100: 300, 300: 450, 1000: 600}  # images of each class: updates of 32 images
SEEDS, TEST_IMAGES = 5, 2000
LAYERS = ("stages.2", "stages.3", "stages.4", "stages.5", "stages.6", "head.0")
RATES = {"fine-tuning": (0.003, 0.01, 0.03), "from scratch": (0.01, 0.03, 0.1)}
MEAN, STD = torch.full((3,), 127 / 255), torch.full((3,), 128 / 255)  # as the published weights expect


def network(classes: int, *, pretrained: bool, seed: int, device: torch.device) -> nn.Module:
    """The network with a new last layer for so many classes."""
    torch.manual_seed(seed)
    model = create_model(NETWORK, weights="IMAGENET1K") if pretrained else create_model(NETWORK)
    model.head[-1] = nn.Linear(model.head[-1].in_features, classes)
    return model.to(device, memory_format=torch.channels_last)


def enlarged(images: ImageSet, device: torch.device) -> Tensor:
    return F.interpolate(normalized(images.to(device), MEAN.to(device), STD.to(device)), size=(SIZE, SIZE),
                         mode="bicubic",
                         antialias=True)


class Record:
    """The rows measured so far, on disk after each."""

    def __init__(self, path: Path, device: torch.device, data: str):
        self.path, before = path, read_record(path)
        self.content = {
            "description": "Linear probe, fine-tuning and training from scratch on CIFAR-10, "
                           "from EfficientNet-Lite0's ImageNet weights",
            "recipe": {"network": NETWORK, "size": SIZE, "steps": {str(n): s for n, s in STEPS.items()},
                       "batch_size": 32,
                       "layers": LAYERS, "rates": RATES, "held_out": 0.2, "test_images": TEST_IMAGES,
                       "precision": "auto"},
            "data": data, "hardware": hardware(device), "choices": before.get("choices", []),
            "rows": before.get("rows", [])}

    def once(self, table: str, measure: Callable[[], dict], **key) -> dict:
        """The row of that key, measured if it is not there."""
        for row in self.content[table]:
            if all(row.get(name) == value for name, value in key.items()):
                return row
        row = {**key, **measure()}
        print(row, flush=True)
        self.content[table].append(row)
        write_record(self.path, self.content)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RECORD, help="the record (data/results/transfer_imagenet.json)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many ({SEEDS})")
    parser.add_argument("--counts", type=int, nargs="+", choices=STEPS, default=list(STEPS),
                        help="images of each class")
    options = parser.parse_args()
    device = best_device()
    train, test = load("cifar10")
    record, test = Record(options.output, device, train.name), test.first(TEST_IMAGES)
    test_images, test_labels = enlarged(test, device), test.labels.to(device)
    classes, model = len(train.classes), network(len(train.classes), pretrained=True, seed=0, device=device)
    of_test = features_at(model, LAYERS, test_images)

    def tuned(method: str, rate: float, images: ImageSet, seed: int) -> nn.Module:
        model = network(classes, pretrained=method == "fine-tuning", seed=seed, device=device)
        fine_tune(model, enlarged(images, device), images.labels, {"": rate}, steps=STEPS[count], precision="auto",
                  seed=seed)
        return model

    def score(model: nn.Module, images: ImageSet) -> float:
        return accuracy(scores(model, enlarged(images, device), precision="auto").cpu(), images.labels, 1)

    def probed(layer: str, images: ImageSet, others: ImageSet) -> float:
        x, y = (features_at(model, [layer], enlarged(part, device))[layer] for part in (images, others))
        return accuracy(linear_probe(x, images.labels, classes)(y).cpu(), others.labels, 1)

    for count in options.counts:
        first = few(train, count, seed=0)
        layer = record.once("choices", lambda: best(on_validation(LAYERS, first, probed)), method="probe",
                            images=count)["choice"]
        for seed in range(options.seeds):
            images = few(train, count, seed=seed)

            def probe() -> dict:
                x = features_at(model, [layer], enlarged(images, device))[layer]
                fitted = linear_probe(x, images.labels, classes)
                return {"accuracy": accuracy(fitted(of_test[layer]), test_labels, 1), "penalty": fitted.penalty}

            record.once("rows", probe, method="probe", choice=layer, images=count, seed=seed)
        for method, rates in RATES.items():
            def of_rate(rate: float, kept: ImageSet, away: ImageSet) -> float:
                return score(tuned(method, rate, kept, seed=0), away)

            rate = record.once("choices", lambda: best(on_validation(rates, first, of_rate)), method=method,
                               images=count)["choice"]
            for seed in range(options.seeds):
                record.once("rows", lambda: {"accuracy": score(tuned(method, rate, few(train, count, seed=seed), seed), test),
                                             "precision": choose_precision("auto", device)[0]},
                            method=method, choice=rate, images=count, seed=seed)


def best(found: dict) -> dict:
    return {"choice": max(found, key=found.get), "validation": {str(option): value for option, value in found.items()}}


if __name__ == "__main__":
    main()
