"""Convolutions arranged for a processor: the same values and gradients as PyTorch's, for every shape that they take."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib import arranged
from cnnlib.running import autocast

CPU = torch.device("cpu")


def images(*shape: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def gradients(function, *tensors):
    out = function(*tensors)
    generator = torch.Generator().manual_seed(1)
    return out, *torch.autograd.grad(out, tensors, torch.randn(out.shape, dtype=out.dtype, generator=generator))


def same(one, other) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("side, kernel, stride, padding, dilation", [
    (side, kernel, stride, padding, dilation)
    for side, kernel, stride, padding, dilation in itertools.product((2, 3, 5, 7, 15), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2))
    if side + 2 * padding > dilation * (kernel - 1)
])
def test_side_by_side_is_the_convolution(side, kernel, stride, padding, dilation):
    torch.manual_seed(0)
    x, weight, bias = images(12, 3, side + 1, side), images(4, 3, kernel, kernel), torch.randn(4, dtype=torch.float64).requires_grad_()
    sizes = ((stride, stride), (padding, padding), (dilation, dilation))

    def ours(x, weight, bias):
        out = arranged.side_by_side(x, weight, bias, *sizes)
        return F.conv2d(x, weight, bias, *sizes) if out is None else out

    same(gradients(ours, x, weight, bias), gradients(lambda *t: F.conv2d(*t, *sizes), x, weight, bias))


def test_side_by_side_is_used_where_it_pays():
    torch.manual_seed(0)
    sizes = ((1, 1), (1, 1), (1, 1))
    weight = images(4, 3, 3, 3)
    assert arranged.side_by_side(images(8, 3, 3, 3), weight, None, *sizes) is not None
    assert arranged.side_by_side(images(7, 3, 3, 3), weight, None, *sizes) is None  # an odd batch
    assert arranged.side_by_side(images(8, 3, 20, 20), weight, None, *sizes) is None  # a large map


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_is_the_convolution(stride):
    torch.manual_seed(0)
    x, weight, bias = images(4, 6, 5, 7), images(3, 6, 1, 1), torch.randn(3, dtype=torch.float64).requires_grad_()
    same(gradients(lambda x, w, b: arranged.pointwise(x, w, b, (stride, stride)), x, weight, bias),
         gradients(lambda x, w, b: F.conv2d(x, w, b, stride), x, weight, bias))


LAYERS = {
    "1x1": nn.Conv2d(8, 12, 1), "1x1, stride 2": nn.Conv2d(8, 12, 1, 2, bias=False), "3x3": nn.Conv2d(8, 12, 3, padding=1),
    "same": nn.Conv2d(8, 12, 3, padding="same"), "grouped": nn.Conv2d(8, 12, 3, groups=4), "depthwise": nn.Conv2d(8, 16, 3, 2, 1, groups=8),
    "depthwise with bias of none": nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), "reflected": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("tiles", [True, False])
def test_a_layer_under_autocast_gives_what_it_did(monkeypatch, name, layout, tiles):
    monkeypatch.setattr(arranged, "_has_tiles", lambda: tiles)
    torch.manual_seed(0)
    layer = LAYERS[name].to(memory_format=layout)
    x = torch.randn(8, 8, 6, 6).contiguous(memory_format=layout).requires_grad_()
    inputs = (x, *layer.parameters())

    def inside(*_):
        with autocast("bfloat16", CPU):
            return layer(x)

    out, *ours = gradients(inside, *inputs)
    assert out.dtype == torch.bfloat16 and layer(x).dtype == torch.float32
    reference, *theirs = gradients(lambda *_: layer(x), *inputs)
    torch.testing.assert_close(out.float(), reference, rtol=0.02, atol=0.02)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_small_maps_are_arranged_where_there_are_tiles(monkeypatch):
    layer, x, seen = nn.Conv2d(8, 8, 3, padding=1), images(8, 8, 3, 3, dtype=torch.float32), []
    monkeypatch.setattr(arranged, "side_by_side", lambda *_: seen.append(1))
    for tiles in (False, True):
        monkeypatch.setattr(arranged, "_has_tiles", lambda tiles=tiles: tiles)
        with autocast("bfloat16", CPU):
            assert layer(x).shape == x.shape
        assert len(seen) == tiles


def test_depthwise_without_gradients_stays_in_bfloat16():
    layer, x, seen = nn.Conv2d(8, 8, 3, groups=8), images(2, 8, 6, 6, dtype=torch.float32), []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "convolution" in func.name():
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    for gradients_needed in (True, False):
        with torch.set_grad_enabled(gradients_needed), autocast("bfloat16", CPU), Watch():
            layer(x)
    assert seen == [torch.float32, torch.bfloat16]


def test_nothing_is_arranged_elsewhere(monkeypatch):
    monkeypatch.setattr(arranged, "pointwise", lambda *_: pytest.fail("arranged"))
    layer, x = nn.Conv2d(8, 12, 1), images(2, 8, 3, 3, dtype=torch.float32)
    with autocast("float32", CPU):
        layer(x)
    layer(x)
    with arranged.ProcessorConvolutions():
        layer(x)  # without autocast
    with autocast("bfloat16", CPU), pytest.raises(pytest.fail.Exception):
        layer(x)
