"""CIFAR-10 as before 2012: a linear classifier on pixels, and on histograms of gradient directions.

    python tools/experiments/handcrafted_features.py        writes data/results/handcrafted_features.json
"""

from pathlib import Path

import torch

from cnnlib.data import ImageSet, load
from cnnlib.features import PENALTIES, gradient_histograms, linear_probe
from cnnlib.train.experiments import accuracy, hardware, write_record

TARGET = Path(__file__).parents[2] / "data" / "results" / "handcrafted_features.json"


def features_of(image_set: ImageSet, kind: str) -> torch.Tensor:
    images = image_set.images.float() / 255
    if kind == "pixels":
        return images.flatten(1)
    return torch.cat([gradient_histograms(part) for part in images.split(1000)])


def main() -> None:
    train, test = load("cifar10")
    record = {"description": "Ridge regression on pixels and on histograms of gradient directions (HOG), CIFAR-10",
              "data": train.name, "train_images": len(train), "test_images": len(test),
              "hardware": hardware(torch.device("cpu")),
              "recipe": {"penalties": PENALTIES, "cell": 4, "directions": 9}, "runs": {}}
    for kind in ("pixels", "gradient histograms"):
        x, x_test = features_of(train, kind), features_of(test, kind)
        probe = linear_probe(x, train.labels, 10)
        scores = {"train": probe(x), "test": probe(x_test)}
        record["runs"][kind] = {"features": x.shape[1], "penalty": probe.penalty,
                                "train_accuracy": accuracy(scores["train"], train.labels, 1),
                                "test_accuracy": accuracy(scores["test"], test.labels, 1),
                                "test_top5_accuracy": accuracy(scores["test"], test.labels, 5)}
    write_record(TARGET, record)


if __name__ == "__main__":
    main()
