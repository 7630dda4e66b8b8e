"""Transfer between classes of CIFAR-10: linear probe, fine-tuning and training from scratch, with few images.

    python tools/experiments/transfer.py                                         half an hour or so of a processor core
    python tools/experiments/transfer.py --output my_transfer.json --seeds 1     one seed, in a record of your own

A narrow VGG-11 with batch norm learns the six animals; the task is then to tell the four vehicles apart, with 10 to
1,000 images of each. Three parts, one record `data/results/transfer.json`, or the one that you name; what is recorded
is skipped, so that a run may be cut off. `methods`: the three ways, and probes on every layer. `settings`: other rates,
frozen stages, batch-norm statistics, at 100 images a class; training from scratch at another rate, also at 1,000.
`sources`: three animals told apart by the features of networks that learned three other animals, or three vehicles.
Writes the weights that learned the animals to `data/weights/vgg11_animals.safetensors`, or beside the record that you
name.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cnnlib import create_model
from cnnlib.data import ImageSet, load
from cnnlib.train import Recipe, fit
from cnnlib.train.experiments import accuracy, hardware, read_record, write_record
from cnnlib.transfer import features_at, few, fine_tune, linear_probe, normalized, only, scores

DATA = Path(__file__).parents[2] / "data"
RECORD, WEIGHTS = DATA / "results" / "transfer.json", DATA / "weights" / "vgg11_animals.safetensors"

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
VEHICLES = ("airplane", "automobile", "ship", "truck")
THIRD = {"three animals": ("bird", "frog", "horse"), "three vehicles": ("airplane", "automobile", "truck")}
THIRD_TARGET = ("cat", "deer", "dog")
NETWORK = {"widths": [16, 32, 64, 128, 128], "dropout": 0.0}
SOURCE = Recipe(model="vgg11_cifar_bn", data="cifar10", epochs=3, batch_size=64, lr=0.05, flip=True, precision="bfloat16")
STEPS = {10: 100, 30: 100, 100: 200, 300: 300, 1000: 400}
SEEDS = 3
LAYERS = ("stages.0", "stages.1", "stages.2", "stages.3", "stages.4", "head.3", "head.6")
SCRATCH, TUNED = 0.05, 0.01
SETTINGS = {
    "fine-tuning, rate 0.001": {"rates": {"": 0.001}},
    "fine-tuning, rate 0.05": {"rates": {"": 0.05}},
    "fine-tuning, rate 0.001, head 0.01": {"rates": {"": 0.001, "head": 0.01}},
    "fine-tuning, stages 1 to 3 frozen": {"rates": {"": TUNED, **{f"stages.{k}": 0.0 for k in range(3)}}},
    "fine-tuning, statistics kept": {"rates": {"": TUNED}, "keep_statistics": True},
    "from scratch, rate 0.01": {"rates": {"": 0.01}},
}


def network(classes: int) -> nn.Module:
    return create_model("vgg11_cifar_bn", num_classes=classes, **NETWORK).to(memory_format=torch.channels_last)


def pretrained(train: ImageSet, test: ImageSet, classes: tuple[str, ...]) -> tuple[nn.Module, list[dict]]:
    model, rows = network(len(classes)), []
    for row in fit(SOURCE, model=model, data=(only(train, classes), only(test, classes)), device="cpu"):
        rows.append({key: value for key, value in row.items() if key != "seconds"})
        print(classes, row, flush=True)
    return model, rows


def from_file(weights: Path, classes: int, *, seed: int) -> nn.Module:
    """The network that knows the animals, with a last layer for other classes."""
    state = {key: value for key, value in load_file(weights).items() if key not in ("mean", "std")}
    model = network(len(ANIMALS))
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    torch.manual_seed(seed)
    model.head[-1] = nn.Linear(model.head[-1].in_features, classes)
    return model


class Record:
    """The rows measured so far, on disk after each."""

    def __init__(self, path: Path, seeds: int):
        self.path, self.seeds = path, seeds
        self.weights = WEIGHTS if path.resolve() == RECORD.resolve() else path.with_suffix(".safetensors")
        before = read_record(path)
        self.content = {
            "description": "Linear probe, fine-tuning and training from scratch on classes of CIFAR-10 that a narrow VGG-11 has not seen",
            "recipe": {"network": NETWORK, "source": SOURCE.to_dict(), "steps": {str(n): s for n, s in STEPS.items()},
                       "batch_size": 32, "rates": {"fine-tuning": TUNED, "from scratch": SCRATCH}, "flip": True,
                       "precision": "bfloat16", "seeds": seeds, "settings": SETTINGS},
            "hardware": hardware(torch.device("cpu")), "sources": before.get("sources", {}), "rows": before.get("rows", [])}

    def source(self, name: str, classes: tuple[str, ...], rows: list[dict]) -> None:
        self.content["sources"][name] = {"classes": list(classes), "images": 5000 * len(classes), "rows": rows}
        write_record(self.path, self.content)

    def add(self, measure: Callable[[], dict], **key) -> None:
        if not any(all(row.get(name) == value for name, value in key.items()) for row in self.content["rows"]):
            row = {**key, **measure()}
            print(row, flush=True)
            self.content["rows"].append(row)
            write_record(self.path, self.content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RECORD, help="the record (data/results/transfer.json)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many ({SEEDS})")
    options = parser.parse_args()
    whole = load("cifar10")
    mean, std = only(whole[0], ANIMALS).statistics()
    record = Record(options.output, options.seeds)
    if "animals" not in record.content["sources"] or not record.weights.exists():
        model, rows = pretrained(*whole, ANIMALS)
        state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
        state = {key: value.contiguous() for key, value in state.items()}
        save_file({**state, "mean": mean, "std": std}, record.weights)
        record.source("animals", ANIMALS, rows)
    methods(record, *whole, mean, std)
    settings(record, *whole, mean, std)
    sources(record, *whole)


def methods(record: Record, train: ImageSet, test: ImageSet, mean: torch.Tensor, std: torch.Tensor) -> None:
    train, test = only(train, VEHICLES), only(test, VEHICLES)
    test_images = normalized(test, mean, std)
    for seed in range(record.seeds):
        torch.manual_seed(seed)
        untrained = network(len(VEHICLES))
        networks = {"animals": from_file(record.weights, len(VEHICLES), seed=seed), "untrained": untrained}
        probes(record, train, test, mean, std, seed, networks)
        for count, steps in STEPS.items():
            images = few(train, count, seed=seed)
            for method, rate in (("fine-tuning", TUNED), ("from scratch", SCRATCH)):
                def trained(method=method, rate=rate):
                    torch.manual_seed(seed)
                    tuned = method == "fine-tuning"
                    model = from_file(record.weights, len(VEHICLES), seed=seed) if tuned else network(len(VEHICLES))
                    losses = fine_tune(model, normalized(images, mean, std), images.labels, {"": rate}, steps=steps,
                                       precision="bfloat16", seed=seed)
                    return {"accuracy": accuracy(scores(model, test_images), test.labels, 1), "steps": steps,
                            "loss": sum(losses[-10:]) / 10}
                record.add(trained, method=method, images=count, seed=seed)


def probes(record: Record, train: ImageSet, test: ImageSet, mean: torch.Tensor, std: torch.Tensor, seed: int,
           networks: dict[str, nn.Module], target: str = "vehicles") -> None:
    largest = few(train, max(STEPS), seed=seed)
    parts = {count: few(train, count, seed=seed) for count in STEPS}
    images, test_images = normalized(largest, mean, std), normalized(test, mean, std)
    of_class = max(STEPS)
    for name, model in networks.items():
        of_training, of_test = (features_at(model, LAYERS, part, grid=2) for part in (images, test_images))
        for layer in LAYERS:
            x, x_test = of_training[layer], of_test[layer]
            for count in parts:
                rows = torch.cat([torch.arange(count) + of_class * label for label in range(len(train.classes))])
                assert torch.equal(largest.images[rows], parts[count].images)

                def probed(rows=rows, x=x, x_test=x_test):
                    probe = linear_probe(x[rows], largest.labels[rows], len(train.classes))
                    return {"accuracy": accuracy(probe(x_test), test.labels, 1), "features": x.shape[1],
                            "penalty": probe.penalty}
                record.add(probed, method="probe", source=name, target=target, layer=layer, images=count, seed=seed)


def settings(record: Record, train: ImageSet, test: ImageSet, mean: torch.Tensor, std: torch.Tensor) -> None:
    train, test = only(train, VEHICLES), only(test, VEHICLES)
    test_images = normalized(test, mean, std)
    for seed, (method, options) in itertools.product(range(record.seeds), SETTINGS.items()):
        for count in (100, 1000) if "scratch" in method else (100,):
            images = few(train, count, seed=seed)

            def trained(method=method, options=options, images=images, count=count):
                torch.manual_seed(seed)
                scratch = "scratch" in method
                model = network(len(VEHICLES)) if scratch else from_file(record.weights, len(VEHICLES), seed=seed)
                fine_tune(model, normalized(images, mean, std), images.labels, steps=STEPS[count], precision="bfloat16", seed=seed,
                          **options)
                return {"accuracy": accuracy(scores(model, test_images), test.labels, 1), "steps": STEPS[count]}
            record.add(trained, method=method, images=count, seed=seed)


def sources(record: Record, train: ImageSet, test: ImageSet) -> None:
    """The same target task from two sources of equal size."""
    for name, classes in THIRD.items():
        if name in record.content["sources"]:
            continue
        model, rows = pretrained(train, test, classes)
        mean, std = only(train, classes).statistics()
        for seed in range(record.seeds):
            probes(record, only(train, THIRD_TARGET), only(test, THIRD_TARGET), mean, std, seed, {name: model},
                   target="cat, deer, dog")
        record.source(name, classes, rows)


if __name__ == "__main__":
    main()
