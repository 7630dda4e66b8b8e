"""Squeeze-and-excitation: what it adds, by the paper's formula, and what it does to a map."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.models.senet import SEBasicBlock, squeeze_excitation
from zoo import count_macs, count_params, on_meta, randomize

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 20: (3, 3, 3), 56: (9, 9, 9), 110: (18, 18, 18)}


@pytest.mark.parametrize("depth", STAGES)
def test_extra_weights_by_the_formula_of_the_paper(depth):
    """2 / r * sum over the stages of N_s * C_s^2, and a bias for each unit, which the formula leaves out.

    There are as many more multiply-adds: each weight is used once for an image.
    """
    small = len(STAGES[depth]) == 3
    reduction, widths = (4, (16, 32, 64)) if small else (16, (256, 512, 1024, 2048))
    weights = sum(2 * number * width**2 // reduction for number, width in zip(STAGES[depth], widths, strict=True))
    biases = sum(number * (width + width // reduction) for number, width in zip(STAGES[depth], widths, strict=True))
    ours, base = on_meta(f"seresnet{depth}"), on_meta(f"resnet{depth}")
    assert count_params(ours) - count_params(base) == weights + biases
    size = (3, 32, 32) if small else (3, 224, 224)
    assert count_macs(ours, size)[0] - count_macs(base, size)[0] == weights


def test_seresnet50_adds_about_two_and_a_half_million_and_almost_no_operations():
    ours, base = on_meta("seresnet50"), on_meta("resnet50")
    assert count_params(ours) - count_params(base) == pytest.approx(2.5e6, rel=0.02)
    assert count_macs(ours, (3, 224, 224))[0] < 1.001 * count_macs(base, (3, 224, 224))[0]


@torch.no_grad()
def test_one_gate_for_each_channel_of_each_image():
    torch.manual_seed(0)
    module = randomize(squeeze_excitation(8, 4))
    x = torch.rand(3, 8, 5, 5) + 0.1
    gates = module(x) / x
    assert gates.shape == x.shape and (gates > 0).all() and (gates < 1).all()
    torch.testing.assert_close(gates, gates.mean((2, 3), keepdim=True).expand_as(gates))
    shuffled = x.flatten(2)[..., torch.randperm(25)].view_as(x)
    torch.testing.assert_close((module(shuffled) / shuffled).amax((2, 3)), gates.amax((2, 3)))  # places do not matter


@torch.no_grad()
def test_module_scales_the_branch_before_the_addition():
    block = randomize(SEBasicBlock(8, 8)).eval()
    nn.init.zeros_(block.excite.excite.weight)
    nn.init.zeros_(block.excite.excite.bias)  # every gate is sigmoid(0) = 1/2
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block(x), (block.branch(x) / 2 + x).relu())


@pytest.mark.parametrize("name, arguments, message", [
    ("seresnet50", {"reduction": 48}, "reduction=48 does not divide the 256 channels"),
    ("seresnet20", {"reduction": 0}, "reduction=0"),
    ("seresnet20", {"widths": (18, 36, 72)}, "reduction=4 does not divide the 18 channels"),
    ("seresnet50", {"widths": (256, 258, 1024, 2048)}, "make each width a multiple of the first"),
])
def test_errors(name, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(name, **arguments)
