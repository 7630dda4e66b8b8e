"""Receptive fields as an explorer: walk the layers of any network and see the field of a unit on a photograph."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import torch
import traitlets
from torch import nn
from torch.nn import functional as F

from cnnlib.analysis import Footprint, gradient_footprints, receptive_field
from cnnlib.data import book_file
from cnnlib.registry import create_model

from .base import Explorer, check_choice, check_count, check_input_size, module, named_model

LONGEST_SIDE = 256  # pixels of the photograph that are kept
MOST_FOOTPRINTS = 8  # layers that `footprints=True` takes
FOOTPRINT_SIDE = 48  # cells of a footprint along each axis, at most
INITIALIZATIONS = 4  # fresh networks that a footprint is averaged over


class ReceptiveFieldExplorer(Explorer):
    """The field of one unit of any layer, to scale on an image, with size, stride, start and overlap in numbers.

        ReceptiveFieldExplorer("alexnet_227")
        ReceptiveFieldExplorer(model, input_size=(3, 227, 227), image="photograph.jpg")

    `model` is a name or a module; a module needs `input_size`. `image` is a path or a `PIL.Image`, cropped around its
    middle to the input's shape; by default the book's photograph of a cat, or a blank sheet where the book's files
    are not at hand. `layer` is the dotted name at which to start, by default the last layer whose units do not all
    see everything. Traits: `layer`, and `row` and `column` of the unit.

    `footprints` measures what units really listen to: the gradient of the layer's central unit to the pixels of a random
    image, averaged over `INITIALIZATIONS` fresh networks if `model` is a name; a module keeps its weights. It is a
    list of layers, or True for a choice of them. This computes with all weights, so it takes seconds for large networks.

    Layers that leave the field as it is (activation, normalization, dropout) are left out, 1x1 convolutions are not.
    Raises `ValueError` for an unknown network or layer, a wrong size, and a file that is not an image.
    """

    _esm = module("receptive_field")
    layer = traitlets.Unicode().tag(sync=True)
    row = traitlets.Any().tag(sync=True)
    column = traitlets.Any().tag(sync=True)
    footprint = traitlets.Bool().tag(sync=True)

    def __init__(self, model: str | nn.Module, *, input_size: Sequence[int] | None = None, image: object = None,
                 layer: str | None = None, footprints: bool | Sequence[str] = False):
        name, network, designed = named_model(model)
        if input_size is None and designed is None:
            raise ValueError(f"{name} has no designed input size; pass input_size=(channels, height, width)")
        size = check_input_size(designed if input_size is None else input_size)
        layers = _layers(network, size)
        if not layers:
            raise ValueError(f"{name} has no layer that looks at an image")
        names = [entry["name"] for entry in layers]
        local = [entry for entry in layers if entry["units"] != [1, 1]] or layers
        first = layers[names.index(check_choice("layer", layer, names))] if layer is not None else local[-1]
        measured = {}
        if footprints:
            chosen = _evenly(local, first["name"]) if footprints is True else list(footprints)
            measured = _footprints(model, size, [check_choice("footprints", one, names) for one in chosen])
        data = {"network": name, "input": list(size[1:]), "image": _data_uri(image, *size[1:]), **_packed(layers),
                "footprints": measured, "fresh": INITIALIZATIONS if isinstance(model, str) else 0}
        super().__init__(data, layer=first["name"], row=first["units"][0] // 2, column=first["units"][1] // 2,
                         footprint=bool(measured))

    @property
    def layers(self) -> list[dict]:
        """What is known of each layer: name, kind, size, stride, start, units, `global`, `unaligned`, spans."""
        return _unpacked(self.data)

    @property
    def summary(self) -> str:
        height, width = self.data["input"]
        return f"{self.data['network']} at {height}x{width}, {len(self.data['layers'])} layers"

    @traitlets.validate("layer")
    def _check_layer(self, proposal):
        return check_choice("layer", proposal.value, [row[0] for row in self.data["layers"]])

    @traitlets.validate("row", "column")
    def _check_unit(self, proposal):
        return check_count(proposal.trait.name, proposal.value, 0, max(self.data["input"]) - 1)


# Layers as rows, because a thousand of them must fit on a page: the kind by its number, a pair of equal numbers as one
# number, and defaults at the end of a row left out.

COLUMNS = ("name", "kind", "size", "stride", "start", "units", "global", "unaligned", "spans")
DEFAULTS = {"global": 0, "unaligned": 0, "spans": 0}


def _packed(layers: list[dict]) -> dict:
    kinds = list(dict.fromkeys(layer["kind"] for layer in layers))

    def short(value):
        whole = [int(number) if number == int(number) else number for number in value]
        return whole[0] if whole[0] == whole[1] else whole

    rows = []
    for layer in layers:
        row = [layer["name"], kinds.index(layer["kind"]), *(short(layer[key]) for key in COLUMNS[2:6]),
               int(layer["global"]), layer["unaligned"], layer["spans"] or 0]
        while len(row) > 6 and row[-1] == 0:
            row.pop()
        rows.append(row)
    return {"kinds": kinds, "layers": rows}


def _unpacked(data: dict) -> list[dict]:
    layers = []
    for row in data["layers"]:
        layer = {**DEFAULTS, **dict(zip(COLUMNS, row)), "kind": data["kinds"][row[1]]}
        pairs = {key: value if isinstance(value := layer[key], list) else [value, value] for key in COLUMNS[2:6]}
        layers.append({**layer, **pairs, "global": bool(layer["global"]), "spans": layer["spans"] or None})
    return layers


# What units really listen to.


def _evenly(layers: list[dict], wanted: str) -> list[str]:
    """At most `MOST_FOOTPRINTS` names, evenly spread, with `wanted` and the last one among them."""
    names = [layer["name"] for layer in layers]
    count = min(MOST_FOOTPRINTS, len(names))
    chosen = {names[round((i + 1) * len(names) / count) - 1] for i in range(count)} | {wanted}
    return [name for name in names if name in chosen]


def _footprints(model: str | nn.Module, size: tuple[int, int, int], names: Sequence[str]) -> dict[str, dict]:
    """Layer -> its footprint as plain data, see `_plain`; random numbers elsewhere are left as they are."""
    maps = {name: [] for name in names}
    state = torch.get_rng_state()
    try:
        for seed in range(INITIALIZATIONS):
            torch.manual_seed(seed)
            network = create_model(model) if isinstance(model, str) else model
            weight = next(network.parameters(), torch.empty(0))
            images = torch.randn(1, *size).to(weight.device, weight.dtype)
            for name, found in gradient_footprints(network, images, names, seed=seed).items():
                maps[name].append(found)
    finally:
        torch.set_rng_state(state)
    return {name: _plain(Footprint(sum(one.map for one in found) / len(found), found[0].unit)) for name, found in maps.items()}


def _plain(footprint: Footprint) -> dict:
    """Unit, box of pixels (first row, first column, height, width), shape of the cells in it, their values, shares.

    The values are bytes in base64, row by row: 255 times the square root of the mean gradient in a cell by that in the
    strongest. `half` and `most` are the sides of the squares around the centre that hold 50% and 95% of the gradient.
    """
    rows, columns = footprint.extent or tuple((0, length - 1) for length in footprint.map.shape)
    part = footprint.map[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    shape = [min(length, FOOTPRINT_SIDE) for length in part.shape]
    cells = F.adaptive_avg_pool2d(part[None, None], shape)[0, 0]
    values = (255 * (cells / cells.max().clamp(min=1e-30)).sqrt()).round().to(torch.uint8)
    return {
        "unit": list(footprint.unit),
        "box": [rows[0], columns[0], *part.shape],
        "shape": shape,
        "values": base64.b64encode(bytes(values.flatten().tolist())).decode("ascii"),
        "half": _side(footprint, 0.5),
        "most": _side(footprint, 0.95),
        "centre": [round(place, 1) for place in footprint.centre],
    }


def _side(footprint: Footprint, share: float) -> int:
    """Side of the smallest square around the centre that holds `share` of the gradient."""
    low, high = 1, 2 * max(footprint.map.shape)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if footprint.share_within((middle, middle)) >= share else (middle + 1, high)
    return low


def _layers(network: nn.Module, size: tuple[int, int, int]) -> list[dict]:
    """The layers at which the field changes, and all convolutions and poolings, in forward order, as plain data."""
    fields = receptive_field(network, size)
    layers, before = [], None
    for name in _children_first(list(fields)):
        field, layer = fields[name], network.get_submodule(name)
        has_window = hasattr(layer, "kernel_size")
        if not has_window and before is not None and _same_view(field, before):
            continue
        before = field
        layers.append({
            "name": name,
            "kind": _kind(layer),
            "size": list(field.size),
            "stride": [float(length) for length in field.stride],
            "start": list(field.start),
            "units": list(field.units),
            "global": field.global_context,
            "unaligned": len(field.unaligned),
            "spans": None if _is_regular(field) else _pixels(field),
        })
    return layers


def _children_first(names: list[str]) -> list[str]:
    """The same names with every module behind the last of those inside it, where its output is ready."""
    ordered, waiting = [], []
    for name in names:
        while waiting and not name.startswith(waiting[-1] + "."):
            ordered.append(waiting.pop())
        waiting.append(name)
    return ordered + waiting[::-1]


def _same_view(field, other) -> bool:
    return all(getattr(field, key) == getattr(other, key)
               for key in ("size", "stride", "start", "units", "global_context"))


def _kind(layer: nn.Module) -> str:
    kind = type(layer).__name__
    for name in ("kernel_size", "stride", "dilation"):
        value = getattr(layer, name, 1)
        pair = value if isinstance(value, tuple) else (value, value)
        if pair != (1, 1) or name == "kernel_size" and hasattr(layer, name):
            kind += f" {pair[0]}x{pair[-1]}" if name == "kernel_size" else \
                f", {name} {pair[0]}" if len(set(pair)) == 1 else f", {name} {pair[0]}x{pair[-1]}"
    return kind


def _pixels(field) -> list[list[tuple[int, int]]]:
    """For each axis the first and last pixel inside the image that each unit sees."""
    return [[field.pixels((i, 0))[0] for i in range(field.units[0])],
            [field.pixels((0, i))[1] for i in range(field.units[1])]]


def _is_regular(field) -> bool:
    """Whether size, stride and start say everything: unit i sees `start + i * stride` and the `size - 1` behind it."""
    for axis, spans in enumerate(_pixels(field)):
        size, stride, start = field.size[axis], field.stride[axis], field.start[axis]
        last = field.input_size[axis] - 1
        if any(span != (max(start + i * stride, 0), min(start + i * stride + size - 1, last))
               for i, span in enumerate(spans)):
            return False
    return True


def _data_uri(image: object, height: int, width: int) -> str:
    """`image` as a JPEG within a data URI, cropped around its middle to height x width and made small; or ""."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if image is None:
        try:
            image = book_file("images/chelsea.jpg")
        except FileNotFoundError:
            return ""
    if not isinstance(image, Image.Image):
        if not isinstance(image, (str, Path)):
            raise ValueError(f"image must be a path or a PIL.Image, not {type(image).__name__}")
        try:
            image = Image.open(image)
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"image={str(image)!r} cannot be read: {error}") from None
    scale = min(1, LONGEST_SIDE / max(height, width))
    fitted = ImageOps.fit(image.convert("RGB"), (max(1, round(width * scale)), max(1, round(height * scale))))
    buffer = io.BytesIO()
    fitted.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
