"""Looking inside: projections equal a deconvnet written out, occlusion and aliasing equal hand-computed cases."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib import create_model
from cnnlib.analysis import aliased_share, deconvolve, occlusion_map, strongest_responses


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
