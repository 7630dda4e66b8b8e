"""CIFAR-10 as before 2012: a linear classifier on pixels, on histograms of gradient directions, and on k-means features.

    python tools/experiments/handcrafted_features.py        writes data/results/handcrafted_features.json

The k-means features are those of Coates, Lee and Ng (AISTATS 2011), with fewer centres: nobody designs them and no label is
looked at; patches are whitened and grouped, and a patch is described by how much nearer than usual it is to each centre. The
classifiers see each training image and its mirror image, the augmentation of the networks in `components.json`.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlib.data import load
from cnnlib.features import PENALTIES, gradient_histograms, linear_probe
from cnnlib.train.experiments import accuracy, hardware, write_record

TARGET = Path(__file__).parents[2] / "data" / "results" / "handcrafted_features.json"
PATCH, CENTRES, PATCHES, ROUNDS = 6, 500, 200_000, 20


def patches_of(images: Tensor) -> Tensor:
    """All patches of images (N, 3, H, W), each brought to mean 0 and deviation 1: (N, places, 3 * PATCH**2)."""
    patches = F.unfold(images.float(), PATCH).transpose(1, 2)
    patches = patches - patches.mean(2, keepdim=True)
    return patches / (patches.var(2, keepdim=True) + 10).sqrt()


class KMeansFeatures:
    """Centres of whitened patches, and for images (N, 3, H, W) the features (N, 4 * CENTRES): sums over the quadrants."""

    def __init__(self, images: Tensor):
        generator = torch.Generator().manual_seed(0)
        each = PATCHES // len(images[:10_000])
        patches = torch.cat([part[torch.arange(len(part))[:, None], torch.randint(part.shape[1], (len(part), each), generator=generator)]
                             for part in map(patches_of, images[:10_000].split(500))]).flatten(0, 1)
        self.mean = patches.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((patches - self.mean).T))
        self.whiten = vectors @ torch.diag((values + 0.1) ** -0.5) @ vectors.T
        patches = (patches - self.mean) @ self.whiten
        self.centres = patches[torch.randperm(len(patches), generator=generator)[:CENTRES]]
        for _ in range(ROUNDS):
            nearest = torch.cat([self.distances(part).argmin(1) for part in patches.split(20_000)])
            sums = torch.zeros_like(self.centres).index_add_(0, nearest, patches)
            counts = nearest.bincount(minlength=CENTRES)[:, None]
            self.centres = torch.where(counts > 0, sums / counts.clamp(min=1), self.centres)

    def distances(self, patches: Tensor) -> Tensor:
        squares = (patches**2).sum(-1, keepdim=True) - 2 * patches @ self.centres.T + (self.centres**2).sum(1)
        return squares.clamp(min=0).sqrt()

    def __call__(self, images: Tensor) -> Tensor:
        distances = self.distances((patches_of(images) - self.mean) @ self.whiten)  # (N, places, CENTRES)
        near = (distances.mean(2, keepdim=True) - distances).clamp(min=0)
        side = round(near.shape[1] ** 0.5)
        maps = near.transpose(1, 2).unflatten(2, (side, side))
        return F.adaptive_avg_pool2d(maps, 2).flatten(1)


def main() -> None:
    train, test = load("cifar10")
    record = {"description": "Ridge regression on pixels, histograms of gradient directions (HOG) and k-means features, CIFAR-10",
              "data": train.name, "train_images": len(train), "test_images": len(test), "augmentation": "every training image mirrored too",
              "hardware": hardware(torch.device("cpu")),
              "recipe": {"penalties": PENALTIES, "cell": 4, "directions": 9, "patch": PATCH, "centres": CENTRES,
                         "patches": PATCHES, "rounds": ROUNDS}, "runs": {}}
    kinds = {"pixels": lambda images: images.flatten(1) / 255, "gradient histograms": gradient_histograms,
             "k-means": KMeansFeatures(train.images)}
    labels = torch.cat([train.labels, train.labels])
    for kind, features in kinds.items():
        own, mirrored, x_test = (torch.cat([features(part) for part in images.split(250)])
                                 for images in (train.images, train.images.flip(3), test.images))
        probe = linear_probe(torch.cat([own, mirrored]), labels, 10)
        scores = {"train": probe(own), "test": probe(x_test)}
        record["runs"][kind] = {"features": own.shape[1], "penalty": probe.penalty,
                                "train_accuracy": accuracy(scores["train"], train.labels, 1),
                                "test_accuracy": accuracy(scores["test"], test.labels, 1),
                                "test_top5_accuracy": accuracy(scores["test"], test.labels, 5)}
        print(kind, record["runs"][kind], flush=True)
    write_record(TARGET, record)


if __name__ == "__main__":
    main()
