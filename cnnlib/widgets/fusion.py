"""RepVGG's fusion: three branches, each with its batch normalization, slid into one kernel while the output stands still."""

from collections.abc import Sequence

import torch
import traitlets
from torch import Tensor, nn

from cnnlib.models.repvgg import RepBlock

from .base import Explorer, WrongValue, check_count, module, style
from .convolution import SIDE, small_photograph

CHANNELS = 3  # of the photograph, and so of the block
STEPS = 12  # 0: as trained, 1: norms folded, 2: kernels of one size, then tenths of the way into one kernel
LIMITS = {"step": (0, STEPS), "channel": (0, CHANNELS - 1)}


class BranchFusion(Explorer):
    """A block of RepVGG on a photograph: move its three branches into one kernel and watch the output.

        BranchFusion()
        BranchFusion(block, step=12)    # a `RepBlock(3, 3)` of yours, in its final form

    `step` is how far the branches have come: 0 as trained, 1 with each normalization folded into its kernel, 2 with kernels of
    one size, 12 as one kernel. `channel` and `unit` as [row, column] choose the output value that is written out.
    Raises `ValueError` for a block of another form and for a number outside its limits.
    """

    _esm = module("fusion")
    _css = style("values", "fusion")
    step = traitlets.Any().tag(sync=True)
    channel = traitlets.Any().tag(sync=True)
    unit = traitlets.List().tag(sync=True)

    def __init__(self, block: RepBlock | None = None, *, step: int = 0, channel: int = 0, row: int = 9, column: int = 8):
        branches = _branches(_example() if block is None else block)
        super().__init__({"branches": branches, "pixels": small_photograph(), "steps": STEPS}, step=step, channel=channel,
                         unit=[row, column])

    @property
    def summary(self) -> str:
        return f"step={self.data['example']['step']}"

    @traitlets.validate(*LIMITS)
    def _check_number(self, proposal):
        return check_count(proposal.trait.name, proposal.value, *LIMITS[proposal.trait.name])

    @traitlets.validate("unit")
    def _check_unit(self, proposal: dict) -> Sequence[int]:
        if len(proposal["value"]) != 2:
            raise WrongValue(f"unit={proposal['value']!r}; it must be [row, column]")
        return [check_count(name, value, 0, SIDE - 1) for name, value in zip(("row", "column"), proposal["value"])]


def _branches(block: RepBlock) -> list[dict]:
    """Kernels and normalizations of the three branches as plain numbers; the identity has no kernel."""
    form = isinstance(block, RepBlock) and len(block.kernels) == 1 and block.pointwise is not None and block.identity is not None
    if not form or tuple(block.kernels[0].conv.weight.shape) != (CHANNELS, CHANNELS, 3, 3) or not isinstance(block.excite, nn.Identity):
        raise ValueError("block must be RepBlock(3, 3): one kernel of 3x3, a 1x1 kernel and the identity, for the three colours")

    def plain(norm: nn.BatchNorm2d) -> dict:
        return {name: tensor.tolist() for name, tensor in (("gamma", norm.weight), ("beta", norm.bias), ("mean", norm.running_mean),
                                                           ("variance", norm.running_var))} | {"eps": norm.eps}

    one, other = block.kernels[0], block.pointwise
    return [{"name": "3\u00d73", "kernel": one.conv.weight.flatten(2).tolist(), "norm": plain(one.norm)},
            {"name": "1\u00d71", "kernel": other.conv.weight.flatten(2).tolist(), "norm": plain(other.norm)},
            {"name": "identity", "kernel": None, "norm": plain(block.identity)}]


def _example() -> RepBlock:
    """A block whose normalizations have the statistics of branches that see a photograph; short numbers, the same every time."""
    block = RepBlock(CHANNELS, CHANNELS).eval()
    random = torch.Generator().manual_seed(4)

    def short(tensor: Tensor, low: float, high: float, digits: int = 2) -> None:
        tensor.copy_((low + (high - low) * torch.rand(tensor.shape, generator=random)).mul(10**digits).round() / 10**digits)

    with torch.no_grad():
        for branch in (block.kernels[0], block.pointwise):
            short(branch.conv.weight, -0.6, 0.6)
        for norm, mean, variance in ((block.kernels[0].norm, 0.3, 0.2), (block.pointwise.norm, 0.2, 0.08), (block.identity, 0.45, 0.05)):
            short(norm.weight, 0.4, 1.4)
            short(norm.bias, -0.3, 0.5)
            short(norm.running_mean, mean - 0.2, mean + 0.2)
            short(norm.running_var, 0.7 * variance, 1.3 * variance, 3)
    return block
