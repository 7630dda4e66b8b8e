"""Pre-activation: the path from block to block is clean, and nothing else changed."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.models.preresnet import PreActBasicBlock, PreActBottleneck
from cnnlib.models.resnet import BasicBlock
from zoo import count_macs, count_params, on_meta, randomize


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_same_parts_as_the_residual_network_in_another_order(depth):
    one, other = on_meta(f"resnet{depth}"), on_meta(f"preresnet{depth}")
    assert count_params(one) == count_params(other)
    assert count_macs(one, (3, 32, 32)) == count_macs(other, (3, 32, 32))


@torch.no_grad()
def test_zero_residual_passes_negative_values_too():
    """Where the first ResNet cuts: its block at zero residual is ReLU, this one is the identity."""
    x = torch.randn(2, 8, 4, 4)
    block, old = PreActBasicBlock(8, 8).eval(), BasicBlock(8, 8).eval()
    nn.init.zeros_(block.branch[-1].weight)
    nn.init.zeros_(old.branch[-1].norm.weight)
    assert torch.equal(block(x), x)
    assert torch.equal(old(x), x.relu()) and not torch.equal(old(x), x)


@torch.no_grad()
def test_output_of_a_stage_is_its_input_plus_all_branches():
    torch.manual_seed(0)
    stage = randomize(create_model("preresnet20")).eval().stages[0][1:]
    x = torch.randn(1, 16, 8, 8)
    total, flow = x, x
    for block in stage:
        total = total + block.branch(block.preactivation(flow))
        flow = block(flow)
    torch.testing.assert_close(flow, total)


@torch.no_grad()
@pytest.mark.parametrize("block", [PreActBasicBlock(8, 16, 2), PreActBasicBlock(8, 16, 2, shortcut="A"),
                                   PreActBottleneck(8, 4, 2)], ids=["basic", "padded", "bottleneck"])
def test_shortcut_that_changes_the_shape_sees_the_activated_input(block):
    randomize(block).eval()
    x = torch.randn(2, 8, 6, 6)
    activated = block.preactivation(x)
    assert (activated >= 0).all()
    torch.testing.assert_close(block(x), block.branch(activated) + block.shortcut(activated))


@torch.no_grad()
@pytest.mark.parametrize("name", ["preresnet20", "preresnet164"])
def test_first_block_activates_what_the_stem_left_bare(name):
    model = randomize(create_model(name)).eval()
    assert isinstance(model.stem, nn.Conv2d)
    x = model.stem(torch.randn(1, 3, 32, 32))
    first = model.stages[0][0]
    activated = first.preactivation(x)
    torch.testing.assert_close(first(x), first.branch(activated) + first.shortcut(activated))
    assert not any(block.activate_shortcut for stage in model.stages for block in stage[1:])


def test_errors():
    with pytest.raises(ValueError, match="stem='mnist'; choose 'imagenet' or 'cifar'"):
        create_model("preresnet20", stem="mnist")
    with pytest.raises(ValueError, match="shortcut='D'"):
        create_model("preresnet20", shortcut="D")
