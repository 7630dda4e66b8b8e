"""Blocks of many networks, designed layer by layer, and compared at equal width or at equal cost."""

import math

import traitlets

from .base import Explorer, check_choice, check_count, module, style

LIMITS = {"channels": (1, 2048), "size": (1, 256), "width": (1, 24576), "groups": (1, 1024), "reduction": (0, 256)}

# Title, where it comes from, its idea, and its own proportions: channels in the middle for each channel outside, groups.
KINDS = {
    "basic": {"title": "Basic", "source": "ResNet, 2015", "ratio": 1, "groups": 1,
              "idea": "Two 3\u00d73 convolutions at full width."},
    "bottleneck": {"title": "Bottleneck", "source": "ResNet, 2015", "ratio": 1 / 4, "groups": 1,
                   "idea": "1\u00d71 convolutions make the channels few for the 3\u00d73 and many again."},
    "resnext": {"title": "ResNeXt", "source": "2016", "ratio": 1 / 2, "groups": 32,
                "idea": "A bottleneck whose 3\u00d73 works in groups: many thin branches beside each other."},
    "fire": {"title": "Fire", "source": "SqueezeNet, 2016", "ratio": 1 / 8, "groups": 1,
             "idea": "A 1\u00d71 squeezes the channels, then 1\u00d71 and 3\u00d73 filters expand them side by side. No normalization, "
                     "so biases count."},
    "separable": {"title": "Depthwise separable", "source": "MobileNet, 2017", "ratio": 1, "groups": 1,
                  "idea": "A depthwise 3\u00d73 filters each channel alone, a 1\u00d71 mixes the channels."},
    "inverted": {"title": "Inverted residual", "source": "MobileNetV2, 2018", "ratio": 6, "groups": 1,
                 "idea": "Wide in the middle, where the filter is depthwise and cheap, and narrow at its ends, which have "
                         "no activation."},
    "shuffle": {"title": "Shuffle unit", "source": "ShuffleNet, 2017", "ratio": 1 / 4, "groups": 4,
                "idea": "1\u00d71 convolutions in groups, and a shuffle that lets the groups meet."},
    "shuffle_v2": {"title": "Shuffle unit, version 2", "source": "ShuffleNetV2, 2018", "ratio": 1 / 2, "groups": 1,
                   "idea": "One half of the channels passes untouched; the shuffle decides which half works next."},
}
CHOICES = {"kind": tuple(KINDS), "order": ("post", "pre"), "compare": ("width", "cost", "groups")}


def own_width(kind: str, channels: int, groups: int) -> int:
    """The middle width in the proportion of the kind's paper: the nearest multiple of `groups`, at least `groups`."""
    return max(1, math.floor(channels * KINDS[kind]["ratio"] / groups + 0.5)) * groups


class BlockDesigner(Explorer):
    """Set the widths of a block; what each of its layers costs follows, and what other blocks cost beside it.

        BlockDesigner()                                             # the bottleneck of ResNet-50's first stage
        BlockDesigner("resnext", channels=256, size=56, groups=32)
        BlockDesigner("inverted", channels=24, size=56, width=144, reduction=4)

    Blocks have stride 1, a square map of `size`, and as many channels out as in, but for `"fire"` (8 times `width`).
    `width` is that of the middle: of a bottleneck, of all branches of ResNeXt together, the expanded channels of an inverted
    residual, the squeeze channels of Fire; by default the proportion of the paper. The other kinds have no choice.
    `groups` counts the branches of ResNeXt and the groups of the shuffle unit. `reduction` is that of
    squeeze-and-excitation in residual blocks, 0 for none. `order` says whether a residual block of ResNet or ResNeXt
    activates after ("post") or before ("pre") its convolutions. `compare` shows the other kinds with as many channels
    ("width"), with the channels at which their multiply-adds come closest ("cost"), or ResNeXt blocks of more
    and more groups at the same channels and closest multiply-adds ("groups").

    Raises `ValueError` for an unknown choice and a number outside `LIMITS`; widths that do not divide are allowed, and
    explained.
    """

    _esm = module("designer", "block")
    _css = style("designer")
    kind = traitlets.Unicode().tag(sync=True)
    channels = traitlets.Any().tag(sync=True)
    size = traitlets.Any().tag(sync=True)
    width = traitlets.Any().tag(sync=True)
    groups = traitlets.Any().tag(sync=True)
    reduction = traitlets.Any().tag(sync=True)
    order = traitlets.Unicode().tag(sync=True)
    compare = traitlets.Unicode().tag(sync=True)

    def __init__(self, kind: str = "bottleneck", *, channels: int = 256, size: int = 56, width: int | None = None,
                 groups: int | None = None, reduction: int = 0, order: str = "post", compare: str = "width"):
        check_choice("kind", kind, CHOICES["kind"])
        check_count("channels", channels, *LIMITS["channels"])
        groups = KINDS[kind]["groups"] if groups is None else check_count("groups", groups, *LIMITS["groups"])
        super().__init__({"kinds": [*KINDS.items()], "limits": LIMITS}, kind=kind, channels=channels, size=size,
                         width=own_width(kind, channels, groups) if width is None else width, groups=groups,
                         reduction=reduction, order=order, compare=compare)

    @property
    def summary(self) -> str:
        example = self.data["example"]
        return f"{example['kind']}, {example['channels']} channels of {example['size']}x{example['size']}"

    @traitlets.validate(*LIMITS)
    def _check_number(self, proposal):
        return check_count(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate(*CHOICES)
    def _check_choice(self, proposal):
        return check_choice(proposal.trait.name, proposal.value, CHOICES[proposal.trait.name])
