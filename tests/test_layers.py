"""The pieces that families share, each beside its definition written by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.layers import (
    ConvNormAct, DropPath, PaddedShortcut, SqueezeExcitation, in_place, make_divisible, make_shortcut, norm_act,
    pooled_classifier, residual_stages, residual_stem, response_norm,
)
from zoo import randomize


def normalized(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    mean, variance = norm.running_mean.view(-1, 1, 1), norm.running_var.view(-1, 1, 1)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


@pytest.mark.parametrize("channels, divisor, expected", [
    (32 * 0.75, 8, 24), (24 * 0.35, 8, 8), (16 * 0.35, 8, 8), (3, 8, 8), (0.1, 8, 8), (20, 8, 24), (19.9, 8, 24),
    (12, 8, 16), (11.9, 8, 16), (100, 8, 104), (99.9, 8, 96), (1280 * 1.4, 8, 1792),
    (384, 16, 384), (100, 24, 96), (68, 24, 72), (35, 24, 48),
])
def test_make_divisible(channels, divisor, expected):
    """The nearest multiple, halves up; the next one where that would lose more than a tenth."""
    assert make_divisible(channels, divisor) == expected


@pytest.mark.parametrize("kernel_size, stride, groups", [(1, 1, 1), (3, 1, 1), (3, 2, 2), (5, 2, 4), (7, 2, 1)])
@torch.no_grad()
def test_conv_norm_act(kernel_size, stride, groups):
    layer = randomize(ConvNormAct(4, 8, kernel_size, stride, groups=groups)).eval()
    x = torch.randn(2, 4, 9, 7)
    expected = F.conv2d(x, layer.conv.weight, None, stride, kernel_size // 2, groups=groups)
    torch.testing.assert_close(layer(x), normalized(layer.norm, expected).relu(), rtol=1e-4, atol=1e-5)
    assert layer.conv.bias is None and layer(x).shape == (2, 8, -(-9 // stride), -(-7 // stride))


@torch.no_grad()
def test_conv_norm_act_with_parts_left_out():
    bare = randomize(ConvNormAct(4, 6, 3, padding=0, norm=None, activation=None))
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(bare(x), F.conv2d(x, bare.conv.weight, bare.conv.bias))
    assert bare.conv.bias is not None and (bare(x) < 0).any()
    torch.testing.assert_close(ConvNormAct(4, 6, 3, norm=None)(x).clamp(max=0), torch.zeros(2, 6, 5, 5))
    assert [ConvNormAct(4, 6, norm=norm, bias=bias).conv.bias is not None for norm, bias in (
        (None, None), (nn.BatchNorm2d, None), (None, False), (nn.BatchNorm2d, True))] == [True, False, False, True]
    with pytest.raises(ValueError, match="groups=3 must divide in_channels=4 and out_channels=6"):
        ConvNormAct(4, 6, groups=3)
    with pytest.raises(ValueError, match="groups=4"):
        ConvNormAct(4, 6, groups=4)


def test_only_an_activation_behind_a_normalization_overwrites():
    """Nobody else holds what a normalization put out; what a convolution put out may be looked at."""
    assert ConvNormAct(4, 4).activation.inplace and not ConvNormAct(4, 4, norm=None).activation.inplace
    norm, activation = norm_act(5)
    assert isinstance(norm, nn.BatchNorm2d) and norm.num_features == 5 and activation.inplace
    assert isinstance(in_place(nn.GELU()), nn.GELU)


@torch.no_grad()
def test_squeeze_excitation():
    """s = sigmoid(W2 relu(W1 z + b1) + b2), z the mean of each channel; x times s (equations 2 to 4 of the paper)."""
    module = randomize(SqueezeExcitation(6, 2))
    x = torch.randn(3, 6, 4, 5)
    hidden = (x.mean((2, 3)) @ module.squeeze.weight.flatten(1).T + module.squeeze.bias).relu()
    gate = (hidden @ module.excite.weight.flatten(1).T + module.excite.bias).sigmoid()
    torch.testing.assert_close(module(x), x * gate[:, :, None, None])
    searched = SqueezeExcitation(6, 2, activation=nn.SiLU, gate=nn.Hardsigmoid)
    assert isinstance(searched.activation, nn.SiLU) and isinstance(searched.gate, nn.Hardsigmoid)


@pytest.mark.parametrize("shape", [(20_000, 2), (20_000, 1, 2, 1)])
def test_drop_path(shape):
    torch.manual_seed(0)
    drop, ones = DropPath(0.2), torch.ones(shape)
    out = drop(ones)
    assert (out.flatten(1) == out.flatten(1)[:, :1]).all(), "a sample is dropped as a whole"
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.8])
    assert (out == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)  # standard error 0.003
    assert drop.eval()(ones) is ones and DropPath(0.0)(ones) is ones
    assert torch.autograd.functional.jacobian(lambda x: drop.train()(x).sum(), torch.ones(50, 1)).unique().numel() == 2
    for probability in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"{probability} is not in"):
            DropPath(probability)


@pytest.mark.parametrize("shape, option, kind", [
    ((4, 4, 1), "A", nn.Identity), ((4, 4, 1), "B", nn.Identity), ((4, 4, 1), "C", ConvNormAct),
    ((4, 8, 1), "A", PaddedShortcut), ((4, 8, 1), "B", ConvNormAct), ((4, 4, 2), "A", PaddedShortcut),
    ((4, 4, 2), "B", ConvNormAct), ((4, 8, 2), "C", ConvNormAct), ((8, 4, 2), "B", ConvNormAct),
])
@torch.no_grad()
def test_shortcut_options(shape, option, kind):
    in_channels, out_channels, stride = shape
    shortcut = randomize(make_shortcut(*shape, option)).eval()
    x = torch.randn(2, in_channels, 6, 7)
    assert type(shortcut) is kind
    if kind is ConvNormAct:
        expected = normalized(shortcut.norm, F.conv2d(x, shortcut.conv.weight, None, stride))
        assert (shortcut(x) < 0).any(), "no activation"
    else:
        expected = torch.zeros(2, out_channels, -(-6 // stride), -(-7 // stride))
        expected[:, :in_channels] = x[:, :, ::stride, ::stride]
    torch.testing.assert_close(shortcut(x), expected)


def test_shortcuts_of_other_families():
    shortcut = make_shortcut(4, 8, 2, norm=None)
    assert [name for name, _ in shortcut.named_parameters()] == ["conv.weight"]
    assert make_shortcut(4, 8, 2, kernel_size=3)(torch.randn(2, 4, 8, 8)).shape == (2, 8, 4, 4)
    with pytest.raises(ValueError, match="'A' adds channels, but 8 would become 4"):
        make_shortcut(8, 4, 1, "A")
    with pytest.raises(ValueError, match="shortcut=None; choose 'A'"):
        make_shortcut(8, 8, 1, None)


def test_residual_stages():
    """The first block of every stage but the first has stride 2; each block reads what the one before put out."""
    made = []

    class Block(nn.Identity):
        def __init__(self, in_channels, width, stride, *, drop_path):
            super().__init__()
            self.out_channels = 3 * width
            made.append((in_channels, width, stride, round(drop_path, 6)))

    stages = residual_stages(Block, 7, (2, 4), (2, 3), drop_path_rate=0.5)
    assert [len(stage) for stage in stages] == [2, 3]
    assert made == [(7, 2, 1, 0.1), (6, 2, 1, 0.2), (6, 4, 2, 0.3), (12, 4, 1, 0.4), (12, 4, 1, 0.5)]
    for widths, depths in (((2,), (2, 3)), ((2, 4), (2, 0)), ((), ())):
        with pytest.raises(ValueError, match="as many stages, none empty"):
            residual_stages(Block, 7, widths, depths)
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"drop_path_rate={rate} is not in"):
            residual_stages(Block, 7, (2,), (2,), drop_path_rate=rate)


@torch.no_grad()
def test_stems():
    x = torch.randn(2, 3, 33, 30)
    large = randomize(residual_stem(3, 8, "imagenet")).eval()
    conv, pool = large
    after = normalized(conv.norm, F.conv2d(x, conv.conv.weight, None, 2, 3)).relu()
    torch.testing.assert_close(large(x), F.max_pool2d(after, 3, 2, padding=1), rtol=1e-4, atol=1e-4)
    assert large(x).shape == (2, 8, 9, 8) and residual_stem(3, 8, "cifar")(x).shape == (2, 8, 33, 30)
    with pytest.raises(ValueError, match="stem='mnist'"):
        residual_stem(3, 8, "mnist")


@torch.no_grad()
def test_pooled_classifier():
    head = pooled_classifier(6, 5)
    x = torch.randn(2, 6, 4, 3)
    torch.testing.assert_close(head(x), x.mean((2, 3)) @ head[-1].weight.T + head[-1].bias)


def test_response_norm_is_the_sum_over_five_channels():
    """a / (2 + 1e-4 * sum of squares of two channels on each side)^0.75 (Krizhevsky et al., 2012, section 3.3)."""
    x = 20 * torch.randn(1, 9, 2, 2, dtype=torch.float64)
    sums = torch.stack([x[:, max(0, c - 2) : c + 3].square().sum(1) for c in range(9)], dim=1)
    torch.testing.assert_close(response_norm()(x), x / (2 + 1e-4 * sums) ** 0.75)
    assert math.isclose(response_norm().alpha, 5e-4)
