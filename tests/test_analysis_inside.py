"""Looking inside: projections equal a deconvnet written out, occlusion and aliasing equal hand-computed cases."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib import create_model, list_models
from cnnlib.analysis import aliased_share, deconvolve, grad_cam, occlusion_map, strongest_responses
from cnnlib.analysis.inside import RECTIFIERS, rectifying
from cnnlib.data import book_file
from cnnlib.photographs import read_photograph
from cnnlib.registry import find_variant
from zoo import smallest_input, smallest_of_each_kind


def deconvnet(convolutions, pools, image, unit):
    """Conv, ReLU, pool twice, and the way back: the paper's section 2.1 step by step."""
    x, memory = image, []
    for conv, pool in zip(convolutions, pools):
        given = x.shape
        before = conv(x).relu()
        x, switches = F.max_pool2d(before, pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode, return_indices=True)
        memory.append((conv, given, before.shape, switches))
    signal = torch.zeros_like(x)
    signal[0][tuple(unit)] = x[0][tuple(unit)]
    for conv, given, before, switches in reversed(memory):
        unpooled = torch.zeros(before).flatten(2).scatter_add(2, switches.flatten(2), signal.flatten(2)).view(before)
        pad = given[2] - F.conv_transpose2d(unpooled, conv.weight, stride=conv.stride, padding=conv.padding).shape[2]
        signal = F.conv_transpose2d(unpooled.relu(), conv.weight, stride=conv.stride, padding=conv.padding,
                                    output_padding=pad)
    return signal


@pytest.mark.parametrize("stride", [1, 2])
def test_projection_equals_the_deconvnet_written_out(stride):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
                          nn.Conv2d(6, 5, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2))
    image = torch.randn(1, 3, 24, 24)
    unit = torch.tensor([4, 1, 1])
    with torch.no_grad():
        expected = deconvnet((model[0], model[3]), (model[2], model[5]), image, unit)
    found = deconvolve(model, "5", image, unit[None])
    assert expected.abs().max() > 1e-3
    assert torch.allclose(found, expected, atol=1e-6)
    assert not any("forward" in vars(module) for module in model.modules())  # all is as it was
    assert all(parameter.grad is None for parameter in model.parameters())


def test_projection_is_zero_outside_of_the_field():
    model = create_model("zfnet_cifar").eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        channel = int(model.stem(image)[:, :, 4, 4].sum(0).argmax())
    projection = deconvolve(model, "stem.0.activation", image, torch.tensor([[channel, 8, 8], [channel, 20, 3]]))
    seen = projection.abs().sum(1) > 0
    assert not seen[0, :7].any() and not seen[0, 10:].any() and not seen[0, :, :7].any() and not seen[0, :, 10:].any()
    assert not seen[1, :19].any() and not seen[1, 22:].any()


def test_strongest_responses_of_a_layer():
    model = nn.Sequential(nn.Identity(), nn.Flatten())
    images = torch.zeros(3, 2, 4, 5)
    images[0, 1, 2, 3], images[2, 0, 3, 4] = 5.0, 7.0
    values, places = strongest_responses(model, "0", images, batch_size=2)
    assert values.tolist() == [[0, 5], [0, 0], [7, 0]]
    assert places[0, 1].tolist() == [2, 3] and places[2, 0].tolist() == [3, 4]


def test_occlusion_lowers_what_it_covers():
    class Centre(nn.Module):
        def forward(self, x):  # the logit of class 1 is the pixel in row 3, column 1
            return torch.stack((torch.zeros(len(x)), x[:, 0, 3, 1]), dim=1)

    image = torch.full((1, 6, 5), 2.0)
    found = occlusion_map(Centre(), image, size=3)[:, :, 1]
    free, covered = torch.tensor([0.0, 2.0]).softmax(0)[1], torch.tensor(0.5)
    expected = torch.full((6, 5), free.item())
    expected[2:5, 0:3] = covered
    assert torch.allclose(found, expected)
    assert occlusion_map(Centre(), image, size=3, stride=2).shape == (3, 3, 2)
    with pytest.raises(ValueError, match="size=4"):
        occlusion_map(Centre(), image, size=4)


def test_aliased_share_of_known_filters():
    x = torch.arange(32.0)
    waves = torch.stack([torch.cos(2 * torch.pi * frequency * x).expand(32, 32) for frequency in (1 / 16, 3 / 16, 7 / 16)])
    share = aliased_share(waves[:, None], stride=4, grid=32)  # represents up to 1/8
    assert torch.allclose(share, torch.tensor([0.0, 1.0, 1.0]), atol=1e-5)
    assert torch.allclose(aliased_share(waves[:, None], stride=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(aliased_share(waves[:, None], stride=2, grid=32), torch.tensor([0.0, 0.0, 1.0]), atol=1e-5)


@torch.no_grad()
def test_grad_cam_of_a_linear_head_is_the_class_activation_map():
    """Behind global average pooling the weights are those of the classifier, over the number of places."""
    torch.manual_seed(0)
    model = create_model("resnet20").eval()
    images = torch.randn(3, 3, 32, 40)
    maps = model.stages(model.stem(images))
    weights = model.head[2].weight
    found = grad_cam(model, images, [1, 7, 0])
    expected = torch.einsum("nchw,nc->nhw", maps, weights[[1, 7, 0]]).relu() / maps[0, 0].numel()
    torch.testing.assert_close(found, expected)
    best = model(images).argmax(1)
    torch.testing.assert_close(grad_cam(model, images), grad_cam(model, images, best))
    assert grad_cam(model, images, layer="stages.0").shape == (3, 32, 40)


def test_what_cannot_be_looked_at_is_named():
    model, images = create_model("resnet20").eval(), torch.randn(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"classes=\[3, 10\] must name one of 10 classes for each of 2 images"):
        grad_cam(model, images, [3, 10])
    with pytest.raises(ValueError, match=r"classes=\[3\] must name"):
        grad_cam(model, images, [3])
    for call in (grad_cam, lambda *args, layer: strongest_responses(args[0], layer, args[1]),
                 lambda *args, layer: deconvolve(args[0], layer, args[1])):
        with pytest.raises(ValueError, match=r"layer 'head' gives out a tensor of shape \(2, 10\), not maps"):
            call(model, images, layer="head")
    for unit in ([0, 0, 8], [64, 0, 0], [0, -1, 0]):
        with pytest.raises(ValueError, match=r"must be a channel, row and column of \(64, 8, 8\) for each of 2"):
            deconvolve(model, "stages.2", images, torch.tensor([[0, 0, 0], unit]))
    with pytest.raises(ValueError, match="Sequential has no stages; name the layer: one of '0', '1'"):
        grad_cam(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), images)
    with pytest.raises(ValueError, match="Sequential has none of the modules .* ReLU, "):
        deconvolve(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), "1", images)
    with pytest.raises(ValueError, match=r"image of shape \(2, 3, 32, 32\) must be one image"):
        occlusion_map(model, images, size=3)
    with pytest.raises(ValueError, match="stride=0"):
        occlusion_map(model, images[0], size=3, stride=0)


@pytest.mark.parametrize("activation", RECTIFIERS)
def test_every_rectifier_goes_back_rectified(activation):
    x = torch.tensor([[-3.0, -0.5, 0.5, 7.0]], requires_grad=True)
    model = nn.Sequential(activation())
    with rectifying(model) as count:
        out = model(x)
        gradient, = torch.autograd.grad(out, x, torch.tensor([[1.0, -1.0, 2.0, -2.0]]))
    assert count == 1 and torch.equal(out, activation()(x)) and gradient.tolist() == [[1, 0, 2, 0]]
    assert "forward" not in vars(model[0])


LOOKED_INTO = ("resnet20", "alexnet_cifar", "nasnet_cifar", "hrnet_cifar", "mobilenet_v3_small", "convnext_cifar",
               "efficientnet_lite0", "googlenet_cifar", "lenet5")
NO_RECTIFIER = ("lenet5",)  # tanh


@pytest.mark.parametrize("name", [*LOOKED_INTO, *(pytest.param(name, marks=pytest.mark.slow) for name in smallest_of_each_kind(
    list_models()) if name not in LOOKED_INTO)])
def test_every_network_is_looked_into_by_one_call_each(name):
    """On a photograph, and the network is left as it was."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    channels, *size = smallest_input(name)
    size = [min(max(64, length), own) for length, own in zip(size, find_variant(name).input_size[1:])]
    photograph = read_photograph(book_file("images/chelsea.jpg")).resize(size[::-1])
    image = torch.tensor(np.asarray(photograph)).permute(2, 0, 1)[:channels] / 127.5 - 1
    images, before = torch.stack([image, -image]), copy.deepcopy(model.state_dict())

    values, places = strongest_responses(model, None, images)
    cam = grad_cam(model, images)
    heat = occlusion_map(model, image, size=15, stride=-(-size[0] // 2))
    assert values.isfinite().all() and (places >= 0).all() and values.shape == places.shape[:2]
    assert cam.isfinite().all() and (cam >= 0).all() and len(cam) == 2
    assert heat.shape[:2] == (2, 2) and torch.allclose(heat.sum(2), torch.ones(2, 2))
    if name in NO_RECTIFIER:
        with pytest.raises(ValueError, match="has none of the modules"):
            deconvolve(model, None, images)
    else:
        projection = deconvolve(model, None, images)
        assert projection.shape == images.shape and projection.isfinite().all() and projection.any()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not model.training and not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
