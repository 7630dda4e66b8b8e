"""Stacks of convolutions and poolings, designed layer by layer, against one convolution with the same field."""

from collections.abc import Mapping, Sequence

import traitlets

from .base import Explorer, WrongValue, check_choice, check_count, module

LIMITS = {"kernel_size": (1, 15), "stride": (1, 8), "padding": (0, 7), "channels": (1, 2048)}
MOST_LAYERS = 16


def conv(channels: int, kernel_size: int, stride: int = 1, *, padding: int = 0) -> dict:
    """One convolution of a stack."""
    return {"kind": "conv", "kernel_size": kernel_size, "stride": stride, "padding": padding, "channels": channels}


def pool(kernel_size: int, stride: int, *, padding: int = 0) -> dict:
    """One pooling of a stack; it keeps the channels."""
    return {"kind": "pool", "kernel_size": kernel_size, "stride": stride, "padding": padding}


PRESETS = {
    "three 3x3": {"input": [64, 56], "bias": False, "layers": [conv(64, 3, padding=1)] * 3},
    "two 3x3": {"input": [64, 56], "bias": False, "layers": [conv(64, 3, padding=1)] * 2},
    "AlexNet's beginning": {
        "input": [3, 227], "bias": True,
        "layers": [conv(96, 11, 4), pool(3, 2), conv(256, 5, padding=2), pool(3, 2)]},
    "VGG-16's beginning": {
        "input": [3, 224], "bias": True,
        "layers": [conv(64, 3, padding=1), conv(64, 3, padding=1), pool(2, 2),
                   conv(128, 3, padding=1), conv(128, 3, padding=1), pool(2, 2)]},
}


class StackDesigner(Explorer):
    """Add, remove and reorder layers; receptive field, output size, parameters and multiply-adds follow.

        StackDesigner()                                             # three 3x3 convolutions against one 7x7
        StackDesigner([conv(96, 11, 4), pool(3, 2)], input_size=(3, 227))

    `layers` are made by `conv` and `pool`, or are the name of one of `PRESETS`. `input_size` is (channels, height), of a square
    image. `bias` says whether biases count among the parameters. Raises `ValueError` for an empty stack, an unknown
    preset, and a number outside `LIMITS`; a layer whose window does not fit is allowed, and explained.
    """

    _esm = module("stack")
    layers = traitlets.List().tag(sync=True)
    input_size = traitlets.List().tag(sync=True)
    bias = traitlets.Bool().tag(sync=True)

    def __init__(self, layers: str | Sequence[Mapping] = "three 3x3", *, input_size: Sequence[int] | None = None,
                 bias: bool | None = None):
        preset = PRESETS[check_choice("layers", layers, list(PRESETS))] if isinstance(layers, str) else {
            "input": (3, 224), "bias": True, "layers": layers}
        super().__init__({"presets": [*PRESETS.items()], "limits": LIMITS, "most": MOST_LAYERS},
                         layers=[dict(layer) for layer in preset["layers"]],
                         input_size=list(preset["input"] if input_size is None else input_size),
                         bias=preset["bias"] if bias is None else bias)

    @property
    def summary(self) -> str:
        names = [f"{layer['kind']} {layer['kernel_size']}x{layer['kernel_size']}" for layer in self.data["example"]["layers"]]
        return ", ".join(names)

    @traitlets.validate("layers")
    def _check_layers(self, proposal):
        if not 1 <= len(proposal.value) <= MOST_LAYERS:
            raise WrongValue(f"layers holds {len(proposal.value)} layers; a stack has 1 to {MOST_LAYERS}")
        for place, layer in enumerate(proposal.value):
            check_choice(f"layers[{place}]['kind']", layer.get("kind"), ["conv", "pool"])
            for name in LIMITS:
                if name != "channels" or layer["kind"] == "conv":
                    check_count(f"layers[{place}][{name!r}]", layer.get(name), *LIMITS[name])
        return proposal.value

    @traitlets.validate("input_size")
    def _check_input_size(self, proposal):
        if len(proposal.value) != 2:
            raise WrongValue(f"input_size={proposal.value!r}; it must be (channels, height)")
        for name, value, most in zip(("channels", "height"), proposal.value, (2048, 1024)):
            check_count(f"input_size's {name}", value, 1, most)
        return proposal.value
