"""What spoilt photographs, an adversarial step and 8-bit numbers do to trained networks, and what their probabilities are worth.

    python tools/experiments/stress.py cifar                                  ResNet-20 of `degradation_30`, some minutes
    python tools/experiments/stress.py imagenet --photographs FOLDER          EfficientNet-Lite0, one photograph a class
    python tools/experiments/stress.py times                                  needs a C++ compiler

CIFAR-10's test images are halved by a seed: on one half the temperature is chosen, on the other all is measured. Calibration for
8 bits takes 512 training images. FOLDER holds `<wnid>_<name>.JPEG` of 256x256, one for each of ImageNet's classes;
they are training images of the network, so only the loss against unspoilt ones tells something. Times are
processor times of interleaved batches, with the quartiles of their ratios. Each part writes its own entry of `data/results/stress.json`.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor

from cnnlib import stress
from cnnlib.data import Batches, ImageSet, load
from cnnlib.photographs import read_photograph
from cnnlib.running import predict
from cnnlib.shipping import fold_batch_norm, quantized
from cnnlib.train.experiments import accuracy, hardware, read_record, write_record
from cnnlib.widgets.follow import trained

RECORD = Path(__file__).parents[2] / "data" / "results" / "stress.json"
CHANGES = {
    "noise": (stress.noise, (4, 8, 16, 32)), "blur": (stress.blur, (0.5, 1.0, 1.5, 2.0)), "coarse": (stress.coarse, (1.5, 2, 3, 4)),
    "jpeg": (stress.jpeg, (90, 70, 50, 30, 10)), "contrast": (stress.contrast, (0.7, 0.5, 0.3, 0.15)),
    "brightness": (stress.brightness, (-80, -40, 40, 80)),
}
STEPS = (1, 2, 4, 8)  # of 255


def network(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The trained network in evaluation mode, mean and standard deviation."""
    model, settings = trained(name)
    return model, torch.tensor(settings["mean"]), torch.tensor(settings["std"])


def halves(count: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.randperm(count, generator=torch.Generator().manual_seed(0)).chunk(2))


def cifar() -> dict[str, object]:
    model, mean, std = network("resnet20")
    training, test = load("cifar10")
    chosen, rest = (test.rows(rows) for rows in halves(len(test)))

    def scores(images: ImageSet, form: nn.Module = model) -> Tensor:
        return predict(form, Batches(images, 250, mean=mean, std=std))[0]

    def percent(images: Tensor, form: nn.Module = model) -> float:
        return accuracy(scores(ImageSet(images, rest.labels, rest.classes, "spoilt"), form), rest.labels, 1)

    def right(images: Tensor, part: ImageSet) -> Tensor:
        return scores(ImageSet(images, part.labels, part.classes, "spoilt")).argmax(1) == part.labels

    warm = stress.temperature(scores(chosen), chosen.labels)
    plain = scores(rest)
    found = {"images": len(rest), "accuracy": accuracy(plain, rest.labels, 1), "temperature": warm}
    for name, divisor in (("as trained", 1.0), ("after temperature", warm)):
        probabilities = (plain / divisor).softmax(1)
        found[name] = {"calibration_error": 100 * stress.calibration_error(probabilities, rest.labels),
                       "mean_confidence": 100 * probabilities.amax(1).mean().item(),
                       "log_loss": nn.functional.nll_loss(probabilities.log(), rest.labels).item(),
                       "bins": stress.calibration(probabilities, rest.labels)}
    found["changes"] = {name: {str(value): percent(change(rest.images, value)) for value in values} for name, (change, values) in CHANGES.items()}
    found["jpeg, 30 less 50"] = {half: paired(*(right(stress.jpeg(part.images, quality), part) for quality in (30, 50)))
                                 for half, part in (("the half that chose nothing", rest), ("the other half", chosen))}
    found["adversarial"] = {}
    for step in STEPS:
        fooled = [stress.adversarial(model, images, labels, epsilon=step, mean=mean, std=std)
                  for images, labels in zip(rest.images.split(250), rest.labels.split(250))]
        found["adversarial"][str(step)] = percent(torch.cat(fooled))
    noise = stress.noise(rest.images, 1.0).int() - rest.images.int()
    found["random_signs"] = {str(step): percent((rest.images.int() + step * torch.where(noise >= 0, 1, -1)).clamp(0, 255).to(torch.uint8)) for step in STEPS}
    folded = fold_batch_norm(model, (3, 32, 32))
    small = quantized(folded, [images for images, _ in Batches(training.first(512), 128, mean=mean, std=std)])
    found["folded"] = {"accuracy": percent(rest.images, folded), "largest_difference": (scores(rest, folded) - plain).abs().max().item()}
    whole = predict_plain(small, rest, mean, std)
    found["int8"] = {"accuracy": accuracy(whole, rest.labels, 1), "same_answer": 100 * (whole.argmax(1) == plain.argmax(1)).float().mean().item(),
                     "mean_difference": (whole - plain).abs().mean().item()}
    return {"recipe": {"network": "resnet20", "data": rest.name, "from": "degradation_30"}, **found, "hardware": hardware(torch.device("cpu"))}


def paired(first: Tensor, second: Tensor) -> dict[str, float]:
    """The difference in percent of two ways to answer the same images, right or wrong (N), and its standard error."""
    each = 100 * (first.double() - second.double())
    return {"difference": each.mean().item(), "standard_error": (each.std() / len(each) ** 0.5).item()}


@torch.no_grad()
def predict_plain(graph: nn.Module, images: ImageSet, mean: Tensor, std: Tensor) -> Tensor:
    """Scores of an exported graph, which knows no mode of evaluation."""
    return torch.cat([graph(batch) for batch, _ in Batches(images, 250, mean=mean, std=std)])


def one_a_class(folder: Path) -> ImageSet:
    """The 1,000 photographs of a folder, 256x256, one for each of ImageNet's classes."""
    files = sorted(folder.glob("*.JPEG"))
    if len(files) != 1000:
        raise SystemExit(f"{folder} holds {len(files)} files *.JPEG; it must be 1000, one for each class in the order of their names")
    pixels = torch.stack([torch.frombuffer(bytearray(read_photograph(file).tobytes()), dtype=torch.uint8).view(256, 256, 3) for file in files])
    return ImageSet(pixels.permute(0, 3, 1, 2), torch.arange(1000), tuple(map(str, range(1000))), "photographs")


def cropped(images: ImageSet) -> ImageSet:
    """Their middle, 224x224."""
    return dataclasses.replace(images, images=images.images[:, :, 16:240, 16:240])


def imagenet(folder: Path) -> dict[str, object]:
    model, mean, std = network("efficientnet_lite0")
    whole = one_a_class(folder)
    photographs, labels = whole.images, whole.labels

    def percent(images: Tensor) -> dict[str, float]:
        scores, _ = predict(model, Batches(cropped(dataclasses.replace(whole, images=images)), 50, mean=mean, std=std))
        return {"top1": accuracy(scores, labels, 1), "top5": accuracy(scores, labels, 5)}

    changes = {"jpeg": (90, 50, 30, 10), "coarse": (2, 3, 4, 6), "noise": (16, 32), "blur": (2.0, 4.0)}
    return {"recipe": {"network": "efficientnet_lite0", "photographs": len(whole), "size": 224}, "as they are": percent(photographs),
            "changes": {name: {str(value): percent(CHANGES[name][0](photographs, value)) for value in values} for name, values in changes.items()},
            "hardware": hardware(torch.device("cpu"))}


@torch.no_grad()
def times(rounds: int = 40) -> dict[str, object]:
    model, mean, std = network("resnet20")
    images = next(iter(Batches(load("cifar10")[1], 100, mean=mean, std=std)))[0]
    folded = fold_batch_norm(model, (3, 32, 32))
    small = quantized(folded, [images])
    inductor.freezing = True  # weights are constants: only then are those of 8 bits stored and multiplied as such
    forms = {"as trained": model, "folded": folded, "folded, compiled": torch.compile(folded), "8 bits, compiled": torch.compile(small)}
    found: dict[str, object] = {"recipe": {"network": "resnet20", "rounds": rounds, "clock": "processor time", "threads": torch.get_num_threads()},
                                "instructions": torch.backends.cpu.get_cpu_capability(), "hardware": hardware(torch.device("cpu"))}
    for size in (1, 100):
        batch, seconds = images[:size], {name: [] for name in forms}
        repeats = 20 if size == 1 else 1  # a clock that counts milliseconds
        for turn in range(rounds + 5):
            for name in sorted(forms, reverse=bool(turn % 2)):
                start = time.process_time()
                for _ in range(repeats):
                    forms[name](batch)
                if turn >= 5:
                    seconds[name].append((time.process_time() - start) / repeats)
        rows = {name: torch.tensor(values) for name, values in seconds.items()}
        found[f"batch of {size}"] = {name: {
            "milliseconds": 1000 * values.median().item(),
            "of the time as trained": torch.quantile(values / rows["as trained"], torch.tensor([0.25, 0.5, 0.75])).tolist(),
        } for name, values in rows.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("cifar", "imagenet", "times"))
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--output", type=Path, default=RECORD)
    options = parser.parse_args()
    if options.part == "imagenet" and options.photographs is None:
        parser.error("imagenet needs --photographs FOLDER")
    found = imagenet(options.photographs) if options.part == "imagenet" else {"cifar": cifar, "times": times}[options.part]()
    record = read_record(options.output, description="Spoilt images, an adversarial step, 8-bit numbers and calibration")
    write_record(options.output, {**record, options.part: found})


if __name__ == "__main__":
    main()
