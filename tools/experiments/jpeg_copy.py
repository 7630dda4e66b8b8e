"""Public networks that were trained on the original images of CIFAR-10, on the test images of the book's copy in JPEG.

    git clone https://github.com/akamaster/pytorch_resnet_cifar10       a ResNet-20 and a ResNet-32, among others
    python tools/experiments/jpeg_copy.py pytorch_resnet_cifar10/pretrained_models          a minute of one processor core

They are `resnet20` and `resnet32` of this book, but for the new channels of their free shortcuts, of which one half comes before the
old ones and one half behind them; they read pixels normalized by ImageNet's mean and deviation. Each file has its own accuracy
on the original test images, the best of its training's epochs. Writes both accuracies of each, in percent, to
`data/results/jpeg_copy.json`.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlib import create_model
from cnnlib.data import Batches, load
from cnnlib.layers import PaddedShortcut
from cnnlib.running import predict
from cnnlib.train.experiments import accuracy, hardware, write_record

TARGET = Path(__file__).parents[2] / "data" / "results" / "jpeg_copy.json"
FILES = {"resnet20": "resnet20-12fca82f.th", "resnet32": "resnet32-d509ac18.th"}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Centred(PaddedShortcut):
    """Zeros on both sides of the channels that are there."""

    def forward(self, x: Tensor) -> Tensor:
        half = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


def public(name: str, state: dict[str, Tensor]) -> torch.nn.Module:
    """The network with those weights, tensor by tensor in their order; counters of batches are not among them."""
    model = create_model(name).eval()
    for part in model.modules():
        if isinstance(part, PaddedShortcut):
            part.__class__ = Centred
    own = model.state_dict()
    keys = [key for key in own if not key.endswith("num_batches_tracked")]
    values = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    model.load_state_dict({**own, **dict(zip(keys, values, strict=True))})
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="pretrained_models of the repository named above")
    folder = parser.parse_args().folder
    if missing := [name for name in FILES.values() if not (folder / name).is_file()]:
        parser.error(f"{folder} has no {', '.join(missing)}")
    torch.set_num_threads(1)
    _, test = load("cifar10")
    networks = {}
    for name, file in FILES.items():
        saved = torch.load(folder / file, map_location="cpu", weights_only=True)
        logits, labels = predict(public(name, saved["state_dict"]), Batches(test, 500, mean=MEAN, std=STD))
        networks[name] = {"file": file, "original": saved["best_prec1"], "copy": accuracy(logits, labels, 1)}
        print(name, networks[name], flush=True)
    write_record(TARGET, {
        "description": "Accuracy of public networks trained on the original images of CIFAR-10: there, as their files say, and on the copy in JPEG",
        "source": "https://github.com/akamaster/pytorch_resnet_cifar10", "data": test.name, "test_images": len(test),
        "networks": networks, "hardware": hardware(torch.device("cpu"))})


if __name__ == "__main__":
    main()
