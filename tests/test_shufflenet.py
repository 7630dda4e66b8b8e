"""ShuffleNet: the shuffle is a permutation with an inverse, and lets groups meet; the first paper's table."""

import pytest
import torch

from cnnlib import create_model
from cnnlib.models.shufflenet import ShuffleUnit, ShuffleUnitV2, channel_shuffle
from zoo import count_macs, on_meta


@pytest.mark.parametrize("channels, groups", [(12, 3), (12, 4), (6, 1), (6, 6), (20, 2)])
def test_the_shuffle_is_a_permutation_and_has_an_inverse(channels, groups):
    x = torch.arange(channels, dtype=torch.float).view(1, channels, 1, 1).expand(2, channels, 2, 3)
    shuffled = channel_shuffle(x, groups)
    assert sorted(shuffled[0, :, 0, 0].tolist()) == list(range(channels))
    assert torch.equal(channel_shuffle(shuffled, channels // groups), x)
    step = channels // groups  # one channel of every group, then the next of every group
    assert shuffled[0, :groups, 0, 0].tolist() == list(range(0, channels, step))


def test_the_shuffle_lets_groups_meet():
    """Which inputs reach which outputs through two grouped convolutions, by the gradient, with and without it."""
    torch.manual_seed(0)
    unit = ShuffleUnit(16, 16, 1, groups=2).eval()

    def inputs_of_first_half() -> int:
        x = torch.rand(1, 16, 5, 5, requires_grad=True)
        unit.expand(unit.depthwise(unit.shuffle(unit.reduce(x))))[:, :8].sum().backward()
        return int(x.grad.abs().sum((0, 2, 3)).gt(0).sum())

    assert inputs_of_first_half() == 16
    unit.shuffle = torch.nn.Identity()
    assert inputs_of_first_half() == 8


@pytest.mark.parametrize("groups, millions", [(1, 143), (2, 140), (3, 137), (4, 133), (8, 137)])
def test_more_groups_wider_layers_same_work(groups, millions):
    """Table 1 of the first paper, which leaves out the fully connected layer."""
    model = on_meta(f"shufflenet_v1_g{groups}")
    macs, _ = count_macs(model, (3, 224, 224))
    assert round((macs - model.head[-1].weight.numel()) / 1e6) == millions


def test_version_1_adds_or_concatenates():
    torch.manual_seed(0)
    x = torch.randn(1, 24, 6, 6)
    down = ShuffleUnit(24, 60, 2, groups=3).eval()
    assert down(x).shape == (1, 60, 3, 3)
    torch.testing.assert_close(down(x)[:, :24], down.shortcut(x).relu())
    keep = ShuffleUnit(24, 24, 1, groups=3).eval()
    branch = keep.expand(keep.depthwise(channel_shuffle(keep.reduce(x), 3)))
    torch.testing.assert_close(keep(x), (x + branch).relu())


def test_version_2_passes_half_of_the_channels():
    unit = ShuffleUnitV2(8, 8, 1).eval()
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(unit(x)[:, ::2], x[:, :4])
    assert ShuffleUnitV2(8, 12, 2)(x).shape == (1, 12, 2, 2)


def test_errors():
    with pytest.raises(ValueError, match="groups=5 .* 12 channels"):
        channel_shuffle(torch.zeros(1, 12, 2, 2), 5)
    with pytest.raises(ValueError, match="groups=7 .* out_channels=240"):
        create_model("shufflenet_v1_g3", groups=7)
    with pytest.raises(ValueError, match="24 would become 30"):
        ShuffleUnit(24, 30, 1, groups=1)
    with pytest.raises(ValueError, match="24 would become 30"):
        ShuffleUnitV2(24, 30, 1)
    with pytest.raises(ValueError, match="out_channels=49 must be even"):
        create_model("shufflenet_v2_x0_5", widths=(49, 98, 196))
    with pytest.raises(ValueError, match="'mnist'.*'imagenet' or 'cifar'"):
        create_model("shufflenet_v2_x0_5", stem="mnist")
