"""The equation of each paper's block, written by hand with functions, beside the block's own `forward`."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.models import (
    convnext, densenet, efficientnet, mobilenet, preresnet, regnet, resnet, resnext, senet, shufflenet, squeezenet,
    wide_resnet,
)
from zoo import randomize


def conv(x: torch.Tensor, layer: nn.Module, stride: int = 1, groups: int = 1) -> torch.Tensor:
    """A convolution that keeps the size at stride 1, with the layer's normalization where it has one."""
    filters = getattr(layer, "conv", layer)
    x = F.conv2d(x, filters.weight, filters.bias, stride, filters.weight.shape[-1] // 2, groups=groups)
    return bn(x, layer.norm) if hasattr(layer, "norm") else x


def bn(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def bn_relu(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    return bn(x, norm).relu()


def gated(x: torch.Tensor, se: nn.Module, activation, gate) -> torch.Tensor:
    z = x.mean((2, 3), keepdim=True)
    return x * gate(conv(activation(conv(z, se.squeeze)), se.excite))


def check(block: nn.Module, by_hand, channels: int, size: tuple[int, int] = (7, 6)) -> None:
    """Equal in evaluation, for a block with random tensors on a map with negative values."""
    block = randomize(block.double()).eval()
    x = torch.randn(2, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = x.clone()
        out, expected = block(x), by_hand(block, x)
    assert torch.equal(x, given), "the block overwrote its input"
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)


# residual blocks

STRIDES = pytest.mark.parametrize("stride", [1, 2])


def around(block: nn.Module, x: torch.Tensor, stride: int) -> torch.Tensor:
    """x, or its projection."""
    return x if isinstance(block.shortcut, nn.Identity) else conv(x, block.shortcut, stride)


def two_convolutions(block, x, stride):
    return conv(conv(x, block.branch[0], stride).relu(), block.branch[1])


def three_convolutions(block, x, strides, groups=1):
    out = conv(x, block.branch[0], strides[0]).relu()
    out = conv(out, block.branch[1], strides[1], groups).relu()
    return conv(out, block.branch[2])


@STRIDES
def test_resnet(stride):
    width = 4 * stride
    check(resnet.PlainBlock(4, width, stride), lambda b, x: two_convolutions(b, x, stride).relu(), 4)
    check(resnet.BasicBlock(4, width, stride),
          lambda b, x: (two_convolutions(b, x, stride) + around(b, x, stride)).relu(), 4)
    for stride_in, strides in (("3x3", (1, stride)), ("1x1", (stride, 1))):
        check(resnet.Bottleneck(8, 2 * stride, stride, stride_in=stride_in),
              lambda b, x: (three_convolutions(b, x, strides) + around(b, x, stride)).relu(), 8)
    check(resnet.BasicBlock(4, 4, shortcut="C"),
          lambda b, x: (two_convolutions(b, x, 1) + conv(x, b.shortcut)).relu(), 4)


@STRIDES
def test_wide_resnet(stride):
    check(wide_resnet.WideBottleneck(8, 2 * stride, stride, width_mult=3),
          lambda b, x: (three_convolutions(b, x, (1, stride)) + around(b, x, stride)).relu(), 8)
    assert wide_resnet.WideBottleneck(8, 2, width_mult=3).branch[1].conv.weight.shape == (6, 6, 3, 3)

    def by_hand(b, x):
        activated = bn_relu(x, b.preactivation[0])
        first, norm, _, _, second = b.branch
        out = conv(bn_relu(conv(activated, first, stride), norm), second)
        return out + (x if stride == 1 else conv(activated, b.shortcut, stride))

    check(wide_resnet.WideBasicBlock(4, 4 * stride, stride, dropout=0.5), by_hand, 4)


@STRIDES
@pytest.mark.parametrize("activate", [False, True])
def test_preresnet(stride, activate):
    def by_hand(b, x, strides):
        activated = out = bn_relu(x, b.preactivation[0])
        for layer, step in zip(b.branch[::3], strides, strict=True):
            position = list(b.branch).index(layer)
            if position:
                out = bn_relu(out, b.branch[position - 2])
            out = conv(out, layer, step)
        if stride == 2:
            return out + conv(activated, b.shortcut, 2)
        return out + (activated if activate else x)

    for block, channels, strides in ((preresnet.PreActBasicBlock(4, 4 * stride, stride), 4, (stride, 1)),
                                     (preresnet.PreActBottleneck(8, 2 * stride, stride), 8, (1, stride, 1))):
        block.activate_shortcut = activate or stride == 2
        check(block, lambda b, x: by_hand(b, x, strides), channels)


@STRIDES
def test_senet(stride):
    def gate(x, b):
        return gated(x, b.excite, torch.relu, torch.sigmoid)

    def padded(x):
        return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, 8 * (stride - 1)))

    check(senet.SEBasicBlock(8, 8 * stride, stride, reduction=4),
          lambda b, x: (gate(two_convolutions(b, x, stride), b) + padded(x)).relu(), 8)
    for deep in (False, True):  # the form of SENet-154
        block = senet.SEBottleneck(8, 8 * stride, stride, cardinality=2, group_width=4, reduction=4, halve_first=deep,
                                   projection_size=3 if deep else 1)
        check(block, lambda b, x: (gate(three_convolutions(b, x, (1, stride), 2), b) + around(b, x, stride)).relu(), 8)
        assert block.branch[0].conv.out_channels == (4 if deep else 8)
        assert stride == 1 or block.shortcut.conv.kernel_size == ((3, 3) if deep else (1, 1))
        assert block.excite.squeeze.out_channels == 2 * stride


@STRIDES
@pytest.mark.parametrize("form", resnext.FORMS)
def test_resnext(stride, form):
    """x plus the sum of the branches, whose last 1x1 share one normalization (equation 3 and figure 3 of the paper)."""
    width = 8 * stride
    grouped = randomize(resnext.ResNeXtBlock(8, width, stride, cardinality=4, group_width=3).double()).eval()
    block = resnext.ResNeXtBlock(8, width, stride, cardinality=4, group_width=3, form=form).double().eval()
    resnext.convert(grouped.branch, block.branch)
    block.shortcut.load_state_dict(grouped.shortcut.state_dict())
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, three, last = grouped.branch
    inside = conv(x, one).relu()
    inside = conv(inside, three, stride, 4).relu()
    terms = [F.conv2d(part, weight) for part, weight in zip(inside.chunk(4, 1), last.conv.weight.chunk(4, 1))]
    expected = (bn(sum(terms), last.norm) + around(grouped, x, stride)).relu()
    torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)


@STRIDES
@pytest.mark.parametrize("reduction", [None, 2])
def test_regnet(stride, reduction):
    def by_hand(b, x):
        out = conv(conv(x, b.branch[0]).relu(), b.branch[1], stride, groups=stride).relu()
        if reduction:
            out = gated(out, b.branch[2], torch.relu, torch.sigmoid)
        return (conv(out, b.branch[-1]) + around(b, x, stride)).relu()

    block = regnet.Bottleneck(8, 8 * stride, stride, group_width=8, reduction=reduction)
    assert not reduction or block.branch[2].squeeze.out_channels == 4  # of the block's input
    check(block, by_hand, 8)


def test_convnext():
    def by_hand(b, x):
        out = F.conv2d(x, b.depthwise.weight, b.depthwise.bias, padding=3, groups=6).movedim(1, -1)
        centred = out - out.mean(-1, keepdim=True)
        out = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * b.norm.weight + b.norm.bias
        out = F.gelu(F.linear(out, b.expand.weight, b.expand.bias))
        out = F.linear(out, b.project.weight, b.project.bias).movedim(-1, 1)
        return x + (out if b.scale is None else b.scale * out)

    for layer_scale in (0.5, None):
        check(convnext.ConvNeXtBlock(6, layer_scale=layer_scale), by_hand, 6)
    assert convnext.ConvNeXtBlock(6).expand.out_features == 24


@STRIDES
@pytest.mark.parametrize("layout", convnext.LAYOUTS)
def test_steps_to_convnext(stride, layout):
    shape = {"layout": layout, "depthwise": layout != "bottleneck", "kernel_size": 5, "norm": nn.BatchNorm2d,
             "activation": nn.ReLU}
    place = 0 if layout == "depthwise first" else 1  # of the 5x5
    width = {"bottleneck": 2 * stride, "inverted": 32 * stride, "depthwise first": 8}[layout]

    def by_hand(b, x, activations=(True, True, False, True)):
        out = x
        for position, layer in enumerate(b.branch):
            here = position == place
            out = conv(out, layer, stride if here else 1, width if here and layout != "bottleneck" else 1)
            out = out.relu() if activations[position] else out
        out = out + around(b, x, stride)
        return out.relu() if activations[3] else out

    check(convnext.StepBlock(8, 8 * stride, stride, **shape, few_activations=False, few_norms=False), by_hand, 8)
    for few_norms in (False, True):
        block = convnext.StepBlock(8, 8 * stride, stride, **shape, few_activations=True, few_norms=few_norms)
        assert [hasattr(layer, "norm") for layer in block.branch] == [True, not few_norms, not few_norms]
        check(block, lambda b, x: by_hand(b, x, (False, True, False, False)), 8)


# small networks


@STRIDES
@pytest.mark.parametrize("expanded, squeeze", [(4, None), (12, None), (12, 3)])
def test_mobilenet(stride, expanded, squeeze):
    def by_hand(b, x):
        out = x if expanded == 4 else F.relu6(conv(x, b.expand))
        out = F.relu6(conv(out, b.depthwise, stride, expanded))
        out = gated(out, b.excite, torch.relu, F.hardsigmoid) if squeeze else out
        out = conv(out, b.project)
        return x + out if stride == 1 else out

    check(mobilenet.InvertedResidual(4, 4, 5, stride, expanded_channels=expanded, squeeze_channels=squeeze), by_hand, 4)
    check(mobilenet.DepthwiseSeparable(4, 6, 3, stride),
          lambda b, x: F.relu6(conv(F.relu6(conv(x, b.depthwise, stride, 4)), b.pointwise)), 4)


@STRIDES
@pytest.mark.parametrize("expansion", [1, 4])
def test_efficientnet(stride, expansion):
    def mbconv(b, x):
        out = x if expansion == 1 else F.silu(conv(x, b.expand))
        out = F.silu(conv(out, b.depthwise, stride, 8 * expansion))
        out = conv(gated(out, b.excite, F.silu, torch.sigmoid), b.project)
        return x + out if stride == 1 else out

    def fused(b, x):
        out = F.silu(conv(x, b.expand, stride))
        out = out if expansion == 1 else conv(out, b.project)
        return x + out if stride == 1 else out

    block = efficientnet.MBConv(8, 8, 5, stride, expansion=expansion)
    assert block.excite.squeeze.out_channels == 2  # a quarter of the block's input
    check(block, mbconv, 8)
    check(efficientnet.FusedMBConv(8, 8, 3, stride, expansion=expansion), fused, 8)


def dealt(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Channel i of group g goes to place i * groups + g."""
    size = x.shape[1] // groups
    return x[:, [place % groups * size + place // groups for place in range(x.shape[1])]]


@STRIDES
def test_shufflenet(stride):
    def version_1(b, x):
        out = dealt(conv(x, b.reduce, groups=3).relu(), 3)
        out = conv(conv(out, b.depthwise, stride, out.shape[1]), b.expand, groups=3)
        return (x + out if stride == 1 else torch.cat([F.avg_pool2d(x, 3, 2, padding=1), out], dim=1)).relu()

    def version_2(b, x):
        passed, worked_on = x.chunk(2, dim=1) if stride == 1 else (x, x)
        if stride == 2:
            depthwise, mix = b.shortcut
            passed = conv(conv(passed, depthwise, 2, 8), mix).relu()
        reduce, depthwise, mix = b.branch
        out = conv(worked_on, reduce).relu()
        out = conv(conv(out, depthwise, stride, out.shape[1]), mix).relu()
        return dealt(torch.cat([passed, out], dim=1), 2)

    check(shufflenet.ShuffleUnit(12, 12 * stride, stride, groups=3), version_1, 12)
    check(shufflenet.ShuffleUnitV2(8, 8 * stride, stride), version_2, 8)


@pytest.mark.parametrize("in_channels, bypass", [(8, None), (16, None), (16, "simple"), (8, "simple"), (8, "complex")])
def test_squeezenet(in_channels, bypass):
    def by_hand(b, x):
        s = conv(x, b.squeeze).relu()
        out = torch.cat([conv(s, b.expand1x1).relu(), conv(s, b.expand3x3).relu()], dim=1)
        if bypass and in_channels == 16:
            return out + x
        return out + conv(x, b.bypass) if bypass == "complex" else out

    check(squeezenet.FireModule(in_channels, 2, bypass=bypass), by_hand, in_channels)


# dense networks


@pytest.mark.parametrize("bottleneck", [None, 2])
@pytest.mark.parametrize("memory_efficient", [False, True])
def test_densenet(bottleneck, memory_efficient):
    """x_l = H_l([x_0, ..., x_{l-1}]), H_l normalization, ReLU, convolution; once, or twice with a bottleneck."""
    def by_hand(block, x):
        for layer in block:
            new = x
            if bottleneck is not None:
                new = conv(bn_relu(new, layer.reduce.norm), layer.reduce.conv)
            new = conv(bn_relu(new, layer.grow.norm), layer.grow.conv)
            x = torch.cat([x, new], dim=1)
        return x

    check(densenet.DenseBlock(5, 3, 3, bottleneck=bottleneck, memory_efficient=memory_efficient), by_hand, 5)
    check(densenet.Transition(6, 4), lambda b, x: F.avg_pool2d(conv(bn_relu(x, b.reduce.norm), b.reduce.conv), 2), 6)


# what training does to a branch


@pytest.mark.parametrize("make", [
    lambda p: resnet.BasicBlock(4, 4, drop_path=p), lambda p: resnet.Bottleneck(8, 2, drop_path=p),
    lambda p: preresnet.PreActBasicBlock(4, 4, drop_path=p), lambda p: preresnet.PreActBottleneck(8, 2, drop_path=p),
    lambda p: wide_resnet.WideBasicBlock(4, 4, drop_path=p), lambda p: wide_resnet.WideBottleneck(8, 2, drop_path=p),
    lambda p: senet.SEBasicBlock(4, 4, drop_path=p),
    lambda p: senet.SEBottleneck(16, 16, cardinality=1, group_width=4, drop_path=p),
    lambda p: resnext.ResNeXtBlock(8, 8, cardinality=2, group_width=2, drop_path=p),
    lambda p: efficientnet.MBConv(4, 4, drop_path=p), lambda p: efficientnet.FusedMBConv(4, 4, drop_path=p),
    lambda p: convnext.ConvNeXtBlock(4, layer_scale=None, drop_path=p),
], ids=lambda make: make(0.0).__class__.__name__)
@torch.no_grad()
def test_a_dropped_branch_leaves_the_input_alone(make):
    """On inputs without negative values, which the last ReLU of some blocks lets pass."""
    torch.manual_seed(0)
    channels = {"Bottleneck": 8, "PreActBottleneck": 8, "WideBottleneck": 8, "ResNeXtBlock": 8, "SEBottleneck": 16}
    block, sure = randomize(make(0.5)), randomize(make(0.0))
    x = torch.rand(64, channels.get(type(block).__name__, 4), 5, 5)
    dropped = torch.tensor([torch.equal(out, given) for out, given in zip(block(x), x)])
    assert 12 < dropped.sum() < 52
    assert not any(torch.equal(out, given) for out, given in zip(sure(x), x))
    assert not any(torch.equal(out, given) for out, given in zip(block.eval()(x), x))
