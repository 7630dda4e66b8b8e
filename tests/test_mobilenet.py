"""MobileNet: what factorizing saves, the multipliers of the papers' tables, inverted residuals."""

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.models.mobilenet import DepthwiseSeparable, InvertedResidual
from libraries import torchvision
from zoo import count_macs, on_meta


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 4)


@pytest.mark.parametrize("m, n, kernel_size, size", [(16, 32, 3, 8), (8, 24, 5, 10), (64, 64, 3, 4)])
def test_cost_of_a_depthwise_separable_convolution(m, n, kernel_size, size):
    """Section 3.1 of the first paper: 1/N + 1/D_K^2 of the multiply-adds and weights of an ordinary convolution."""
    with torch.device("meta"):
        separable = DepthwiseSeparable(m, n, kernel_size)
        dense = nn.Conv2d(m, n, kernel_size, padding=kernel_size // 2, bias=False)
    ratio = 1 / n + 1 / kernel_size**2
    assert weights(separable) == kernel_size**2 * m + m * n == pytest.approx(weights(dense) * ratio)
    macs, shape = count_macs(separable, (m, size, size))
    assert shape == (1, n, size, size)
    assert macs == pytest.approx(count_macs(dense, (m, size, size))[0] * ratio)


def test_depthwise_separable_is_a_dense_convolution_of_rank_one_filters():
    torch.manual_seed(0)
    block = DepthwiseSeparable(4, 6).eval()
    x = torch.randn(2, 4, 7, 7)
    depthwise, pointwise = block.depthwise.conv.weight, block.pointwise.conv.weight
    dense = nn.functional.conv2d(x, pointwise * depthwise.squeeze(1), padding=1)
    separate = nn.functional.conv2d(nn.functional.conv2d(x, depthwise, padding=1, groups=4), pointwise)
    torch.testing.assert_close(separate, dense)


@pytest.mark.parametrize("size, millions", [(224, 569), (192, 418), (160, 290), (128, 186)])
def test_resolution_multiplier(size, millions):
    """Table 7 of the first paper, which rounds 290.7 down and 568.7 up."""
    macs, _ = count_macs(on_meta("mobilenet_v1"), (3, size, size))
    assert abs(macs / 1e6 - millions) < 1


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_width_multiplier_of_version_3(name):
    with torch.device("meta"):
        ours, theirs = create_model(name, width_mult=0.75), torchvision.models.get_model(name, width_mult=0.75)
    assert [t.shape for t in ours.state_dict().values()] == [t.shape for t in theirs.state_dict().values()]
    assert count_macs(ours, (3, 224, 224)) == count_macs(theirs, (3, 224, 224))


def test_where_the_inverted_residual_has_a_shortcut():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    for out_channels, stride, shortcut in ((8, 1, True), (8, 2, False), (12, 1, False)):
        block = InvertedResidual(8, out_channels, 3, stride, expanded_channels=48).eval()
        assert block.has_shortcut is shortcut
        nn.init.zeros_(block.project.norm.weight)  # an empty branch: only the shortcut speaks
        assert torch.equal(block(x), x) if shortcut else not block(x).any()


def test_the_ends_of_an_inverted_residual_are_linear():
    block = InvertedResidual(8, 8, expanded_channels=48)
    assert not hasattr(block.project, "activation") and hasattr(block.expand, "activation")
    assert isinstance(InvertedResidual(8, 8, expanded_channels=8).expand, nn.Identity)


def test_small_forms_see_a_small_image_as_the_large_ones_see_a_larger():
    for name in list_models("mobilenet_*_cifar"):
        model = on_meta(name).eval()
        assert model.stages(model.stem(torch.empty(1, 3, 32, 32, device="meta"))).shape[2:] == (4, 4)


def test_errors():
    for name in ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"):
        with pytest.raises(ValueError, match="width_mult=0 must be positive"):
            create_model(name, width_mult=0)
