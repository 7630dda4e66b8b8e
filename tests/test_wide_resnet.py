"""Wide ResNet: what width costs, where dropout sits, which depths exist."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.models.wide_resnet import WideBasicBlock
from zoo import count_macs, count_params, on_meta, randomize


def test_table_1_of_the_paper():
    """Three stages of n = (depth - 4) / 6 blocks with 16k, 32k, 64k channels; the stem keeps 16."""
    model = on_meta("wide_resnet28_10")
    assert model.stem.out_channels == 16
    assert [len(stage) for stage in model.stages] == [4, 4, 4]
    assert [stage[-1].out_channels for stage in model.stages] == [160, 320, 640]


def test_parameters_grow_with_the_square_of_the_width():
    with torch.device("meta"):
        thin, wide = (create_model("wide_resnet16_8", width_mult=k) for k in (4, 8))
    assert 3.9 < count_params(wide) / count_params(thin) < 4.1


def test_small_form_costs_about_what_resnet20_costs():
    small, base = (count_macs(on_meta(name), (3, 32, 32))[0] for name in ("wide_resnet10_2", "resnet20"))
    assert 0.9 < small / base < 1.1


def test_inner_width_is_what_the_imagenet_network_doubles():
    wide, base = on_meta("wide_resnet50_2"), on_meta("resnet50")
    for ours, other in zip(wide.stages, base.stages, strict=True):
        assert ours[0].out_channels == other[0].out_channels
        assert ours[0].branch[1].conv.in_channels == 2 * other[0].branch[1].conv.in_channels


@torch.no_grad()
def test_dropout_sits_between_the_convolutions_and_only_acts_in_training():
    torch.manual_seed(0)
    block = randomize(WideBasicBlock(4, 8, 2, dropout=0.3))
    assert [type(layer) for layer in block.branch] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    block.eval()
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), block(x))
    block.branch[3].train()
    assert not torch.equal(block(x), block(x))


@pytest.mark.parametrize("name, arguments, message", [
    ("wide_resnet28_10", {"depth": 20}, r"depth=20 is not 6n \+ 4"),
    ("wide_resnet28_10", {"depth": 4}, "choose 10, 16, 22"),
    ("wide_resnet28_10", {"width_mult": 0}, "width_mult=0 is less than 1"),
    ("wide_resnet50_2", {"width_mult": 0}, "width_mult=0 is less than 1"),
])
def test_errors(name, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(name, **arguments)
