"""An Inception module, designed branch by branch: what each layer costs, naively and with 1x1 reductions."""

from collections.abc import Sequence

import traitlets

from cnnlib.models.googlenet import TABLE, InceptionRow

from .base import Explorer, check_choice, check_count, module, style

LIMITS = {"in_channels": (1, 2048), "size": (1, 256), **dict.fromkeys(InceptionRow._fields, (1, 1024))}


def _presets() -> dict[str, dict]:
    """A worked example of courses, and the nine modules of GoogLeNet with the map that each of them gets."""
    presets = {"example": {"in_channels": 256, "size": 28, **InceptionRow(128, 64, 192, 64, 96, 64)._asdict()}}
    channels = 192
    for name, row in TABLE.items():
        presets[name] = {"in_channels": channels, "size": {"3": 28, "4": 14, "5": 7}[name[0]], **row._asdict()}
        channels = row.conv1x1 + row.conv3x3 + row.conv5x5 + row.pool_proj
    return presets


PRESETS = _presets()


class InceptionDesigner(Explorer):
    """Set the channels of every layer of an Inception module; both of its forms and their costs follow.

        InceptionDesigner()                                  # the example: a module on a 28x28 map of 256 channels
        InceptionDesigner("4a")                              # a module of GoogLeNet
        InceptionDesigner((64, 96, 128, 16, 32, 32), in_channels=192, size=28)

    `row` is the name of one of `PRESETS`, or six channel counts in the order of `InceptionRow`. `in_channels` and `size`
    are those of the square map that goes in. Every one of these numbers is a trait. Costs are those of the modules
    `NaiveInception` and `Inception` of `cnnlib.models.googlenet`, biases among the parameters, no normalization.
    Raises `ValueError` for an unknown preset, another number of channel counts, and a number outside `LIMITS`.
    """

    _esm = module("designer", "inception")
    _css = style("designer")
    in_channels = traitlets.Any().tag(sync=True)
    size = traitlets.Any().tag(sync=True)
    conv1x1 = traitlets.Any().tag(sync=True)
    reduce3x3 = traitlets.Any().tag(sync=True)
    conv3x3 = traitlets.Any().tag(sync=True)
    reduce5x5 = traitlets.Any().tag(sync=True)
    conv5x5 = traitlets.Any().tag(sync=True)
    pool_proj = traitlets.Any().tag(sync=True)

    def __init__(self, row: str | Sequence[int] = "example", *, in_channels: int | None = None,
                 size: int | None = None):
        if isinstance(row, str):
            setting = dict(PRESETS[check_choice("row", row, list(PRESETS))])
        elif isinstance(row, Sequence) and len(row) == len(InceptionRow._fields):
            setting = {**PRESETS["example"], **InceptionRow(*row)._asdict()}
        else:
            raise ValueError(f"row={row!r}; it must be one of {', '.join(map(repr, PRESETS))}, or six channel counts: "
                             f"{', '.join(InceptionRow._fields)}")
        given = {"in_channels": in_channels, "size": size}
        setting |= {name: value for name, value in given.items() if value is not None}
        super().__init__({"presets": [*PRESETS.items()], "limits": LIMITS}, **setting)

    @property
    def summary(self) -> str:
        example = dict(self.data["example"])
        in_channels, size = example.pop("in_channels"), example.pop("size")
        return f"{tuple(example.values())}, {in_channels} channels of {size}x{size}"

    @traitlets.validate(*LIMITS)
    def _check_setting(self, proposal):
        return check_count(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])
