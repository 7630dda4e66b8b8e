"""Convolutions arranged for a processor: the same values and gradients as PyTorch's, for every shape that they take."""

import itertools
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cnnlib import arranged, create_model
from cnnlib.running import autocast

CPU = torch.device("cpu")
ARRANGING = pytest.mark.skipif(not arranged.TELLS_HOOKS, reason="nothing is arranged before PyTorch 2.8")


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


@ARRANGING
def test_small_maps_are_arranged_where_there_are_tiles(monkeypatch):
    layer, x, seen = nn.Conv2d(8, 8, 3, padding=1), images(8, 8, 3, 3, dtype=torch.float32), []
    monkeypatch.setattr(arranged, "side_by_side", lambda *_: seen.append(1))
    for tiles in (False, True):
        monkeypatch.setattr(arranged, "_has_tiles", lambda tiles=tiles: tiles)
        with autocast("bfloat16", CPU):
            assert layer(x).shape == x.shape
        assert len(seen) == tiles


@ARRANGING
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


def test_nothing_is_arranged_where_pytorch_does_not_tell_of_hooks(monkeypatch):
    monkeypatch.setattr(arranged, "TELLS_HOOKS", False)
    monkeypatch.setattr(arranged, "pointwise", lambda *_: pytest.fail("arranged"))
    with autocast("bfloat16", CPU):
        nn.Conv2d(8, 12, 1)(images(2, 8, 3, 3, dtype=torch.float32))


@ARRANGING
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


# --- whatever is asked for, PyTorch's answer or its refusal -----------------------------------------------------------


def last(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


def answer(mode: bool, x, weight, *others, **named):
    """The output, or the error and its words, under autocast with and without the mode."""
    try:
        with torch.autocast("cpu", torch.bfloat16), arranged.ProcessorConvolutions() if mode else nullcontext():
            return F.conv2d(x, weight, *others, **named)
    except Exception as error:
        return type(error), str(error).partition("\n")[0]


def same_answer(x, weight, *others, **named) -> None:
    ours, theirs = (answer(mode, x, weight, *others, **named) for mode in (True, False))
    if isinstance(theirs, tuple) or isinstance(ours, tuple):
        assert ours == theirs
    else:
        assert ours.stride() == theirs.stride() or not ours.numel()
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert (ours - theirs).norm() <= 0.02 * theirs.norm()


@pytest.fixture
def tiles(monkeypatch):
    monkeypatch.setattr(arranged, "_has_tiles", lambda: True)
    torch.manual_seed(0)


KERNELS = {"1x1": (12, 8, 1, 1), "3x3": (12, 8, 3, 3), "depthwise": (16, 1, 3, 3)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("named", [
    {"stride": [2]}, {"stride": (2, 1)}, {"padding": "same"}, {"padding": "valid"}, {"padding": (0, 1)}, {"dilation": (1, 2)},
    {"stride": (1, 2, 3)}, {"padding": (0, 1, 0)}, {"dilation": (1, 1, 1)}, {"stride": ()}, {"stride": 0}, {"stride": -1}, {"padding": -1},
    {"dilation": 0}, {"stride": torch.tensor(2)}, {"groups": 3}, {"bias": torch.ones(1)}, {"bias": torch.ones(1, 12)},
], ids=lambda named: " ".join(f"{name} {getattr(value, 'shape', value)}" for name, value in named.items()))
def test_sizes_in_every_form(tiles, kernel, named):
    groups = {"groups": 8} if kernel == "depthwise" else {}
    same_answer(last(4, 8, 5, 6), last(*KERNELS[kernel]), **{**groups, **named})


@pytest.mark.parametrize("shape, kernel, padding", [
    ((0, 8, 5, 5), (12, 8, 3, 3), 1), ((0, 8, 5, 5), (12, 8, 1, 1), 0), ((4, 0, 5, 5), (12, 0, 1, 1), 0),  # nothing in it
    ((4, 8, 5, 5), (0, 8, 1, 1), 0), ((4, 8, 5, 5), (12, 7, 1, 1), 0), ((4, 8, 5, 5), (12, 7, 3, 3), 1),
    ((4, 8, 2, 5), (12, 8, 3, 3), 0), ((4, 8, 5, 2), (12, 8, 3, 3), 0),  # a kernel larger than the map
    ((2, 8, 3, 3), (12, 8, 3, 3), 1), ((8, 8, 3, 3), (12, 8, 3, 3), 1),  # all images in one row
    ((4, 8, 1, 7), (12, 8, 1, 7), 0), ((4, 8, 7, 1), (12, 8, 7, 1), 0),
])
def test_shapes_at_the_edge(tiles, shape, kernel, padding):
    same_answer(last(*shape), last(*kernel), padding=padding)


@pytest.mark.parametrize("weight", [last(8, 8, 1, 1), torch.randn(8, 8, 1, 1), torch.randn(8, 1, 1, 8).permute(0, 3, 1, 2),
                                    last(8, 8, 3, 3), torch.randn(8, 8, 3, 3)])
@pytest.mark.parametrize("x", [torch.randn(4, 8, 1, 1), torch.randn(4, 1, 1, 8).permute(0, 3, 1, 2), last(4, 8, 3, 3)[:, :, :1, :1],
                               last(8, 8, 3, 3)[::2], torch.randn(1, 8, 3, 3).expand(4, 8, 3, 3), torch.randn(8, 3, 3)])
def test_memory_that_can_be_read_both_ways(tiles, x, weight):
    same_answer(x, weight, padding=weight.shape[2] // 2)


def test_one_channel_lies_as_it_did(tiles):
    for size in (1, 3):  # a network for digits may end in `view`, which channels last would refuse
        same_answer(torch.randn(16, 1, 7, 7), torch.randn(8, 1, size, size), padding=size // 2)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtypes", itertools.product((torch.float64, torch.float32, torch.bfloat16), repeat=2), ids=str)
def test_other_precisions(tiles, kernel, dtypes):
    groups = 8 if kernel == "depthwise" else 1
    same_answer(last(4, 8, 5, 6, dtype=dtypes[0]), last(*KERNELS[kernel], dtype=dtypes[1]), groups=groups)


def test_gradients_are_channels_last(tiles):
    for x, weight, stride in ((images(4, 8, 6, 6), images(12, 8, 1, 1), 2), (images(64, 8, 3, 3), images(12, 8, 3, 3), 1)):
        x, weight = (tensor.detach().float().requires_grad_() for tensor in (x, weight))
        with autocast("bfloat16", CPU):
            F.conv2d(x, weight, stride=stride).float().square().sum().backward()
        assert x.grad.is_contiguous(memory_format=torch.channels_last) and weight.grad.stride()[1] == 1


def test_what_is_computed_twice(tiles):
    """Gradient checkpointing computes again during the backward pass, where the mode has ended."""
    layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 3, padding=1))
    layers.to(memory_format=torch.channels_last)
    found = []
    for again in (True, False):
        layers.zero_grad()
        with autocast("bfloat16", CPU):
            y = checkpoint(layers, last(4, 8, 3, 3).fill_(0.5), use_reentrant=False) if again else layers(last(4, 8, 3, 3).fill_(0.5))
        y.float().square().sum().backward()
        found.append([weight.grad.clone() for weight in layers.parameters()])
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 0.03 * b.norm()
    network = create_model("densenet_cifar", num_classes=10, memory_efficient=True).to(memory_format=torch.channels_last)
    with autocast("bfloat16", CPU):
        outputs = network(last(4, 3, 32, 32))
    outputs.float().sum().backward()


def test_transformed_by_vmap(tiles):
    x, weight = torch.randn(2, 4, 8, 5, 5), torch.randn(12, 8, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        plain = torch.func.vmap(lambda part: F.conv2d(part, weight))(x)
    with autocast("bfloat16", CPU):
        torch.testing.assert_close(torch.func.vmap(lambda part: F.conv2d(part, weight))(x), plain, rtol=0.02, atol=0.02)


@ARRANGING
def test_compiled_in_one_piece(tiles):
    layers = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=8, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    layers.to(memory_format=torch.channels_last)
    x, programs = last(4, 8, 3, 3), []

    def backend(program, inputs):
        programs.append({node.target for node in program.graph.nodes if node.op == "call_function"})
        return program

    with autocast("bfloat16", CPU):
        torch.testing.assert_close(torch.compile(layers, backend=backend, fullgraph=True)(x), layers(x))
    assert len(programs) == 1 and any("linear" in str(target) for target in programs[0])


@pytest.mark.parametrize("groups", [1, 8, 64])
@pytest.mark.parametrize("side, kernel, stride, padding, dilation", [(1, 3, 2, 1, 1), (2, 3, 4, 1, 1), (3, 2, 4, 0, 1), (3, 7, 4, 3, 1), (5, 3, 2, 0, 2)])
@ARRANGING
def test_one_column_is_not_what_memory_held(side, kernel, stride, padding, dilation, groups):
    """PyTorch's own results and gradients in bfloat16 have been anything here, so float32 is the measure."""
    torch.manual_seed(0)
    sizes = ((stride, stride), (padding, padding), (dilation, dilation), groups)
    x, weight = (tensor.detach().float().requires_grad_() for tensor in (images(5, 64, 5, side), images(64, 64 // groups, kernel, kernel)))

    def ours(x, weight):
        with autocast("bfloat16", CPU):
            return F.conv2d(x, weight, None, *sizes).float()

    for a, b in zip(gradients(ours, x, weight), gradients(lambda *t: F.conv2d(*t, None, *sizes), x, weight), strict=True):
        assert (a - b).norm() < 0.02 * b.norm()
    assert arranged.one_column(x, weight, None, *sizes).shape[3] == 1
    assert arranged.one_column(x, weight, None, (stride, 1), *sizes[1:]) is None
