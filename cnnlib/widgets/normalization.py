"""The axes of normalization: which values of a batch share a mean and a deviation."""

import random

import traitlets

from .base import Explorer, check_choice, check_count, module, style

KINDS = ("batch", "layer", "instance", "group")
SAMPLES, CHANNELS, PLACES = 3, 4, 6
LIMITS = {"groups": (1, CHANNELS), "sample": (0, SAMPLES - 1), "channel": (0, CHANNELS - 1), "place": (0, PLACES - 1)}


class NormalizationAxes(Explorer):
    """Press a value of a batch: it shows with which others it is normalized, by which mean and deviation, and to what.

        NormalizationAxes()
        NormalizationAxes("group", groups=2)

    The batch has 3 images of 4 channels and 2 x 3 places. `kind` is "batch", "layer", "instance" or "group" (in `groups` that
    divide the channels). Raises `ValueError` for another kind and a number outside `LIMITS`.
    """

    _esm = module("normalization")
    _css = style("values")
    kind = traitlets.Unicode().tag(sync=True)
    groups = traitlets.Any().tag(sync=True)
    sample = traitlets.Any().tag(sync=True)
    channel = traitlets.Any().tag(sync=True)
    place = traitlets.Any().tag(sync=True)

    def __init__(self, kind: str = "batch", *, groups: int = 2, sample: int = 1, channel: int = 1, place: int = 2):
        rng = random.Random(3)
        values = [[[rng.randint(0, 9) + 3 * c for _ in range(PLACES)] for c in range(CHANNELS)] for _ in range(SAMPLES)]
        super().__init__({"values": values}, kind=kind, groups=groups, sample=sample, channel=channel, place=place)

    @property
    def summary(self) -> str:
        return self.data["example"]["kind"]

    @traitlets.validate("kind")
    def _check_kind(self, proposal):
        return check_choice("kind", proposal.value, KINDS)

    @traitlets.validate(*LIMITS)
    def _check_number(self, proposal):
        number = check_count(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])
        if proposal.trait.name == "groups":
            check_choice("groups", number, [count for count in range(1, CHANNELS + 1) if CHANNELS % count == 0])
        return number
