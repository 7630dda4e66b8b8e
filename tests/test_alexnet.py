"""What is particular to the AlexNets: the published counts, who hears whom, and what is refused."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.layers import response_norm


def convolutions(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_first_layers_of_the_customary_tower():
    table = cost_table(create_model("alexnet_227"), (3, 227, 227))
    conv1, _, pool1 = table[:3]
    assert (conv1.output_shape, conv1.params) == ((96, 55, 55), 34_944)  # (11*11*3 + 1) * 96
    assert (pool1.output_shape, pool1.params) == ((96, 27, 27), 0)


def test_two_towers_talk_where_the_papers_towers_talk():
    model = create_model("alexnet_two_tower")
    heard = []
    for layer in convolutions(model):
        x = torch.randn(1, layer.in_channels, 11, 11, requires_grad=True)
        gradient, = torch.autograd.grad(layer(x)[:, : layer.out_channels // 2].sum(), x)
        heard.append(int((gradient.abs().sum((0, 2, 3)) > 0).sum()))
    assert heard == [3, 48, 256, 192, 192]
    assert sum(p.numel() for p in model.parameters()) == 60_965_224


def test_response_norm_is_the_papers_sum_over_five_channels():
    a = 20 * torch.randn(2, 9, 4, 4, dtype=torch.float64)
    expected = torch.empty_like(a)
    for c in range(9):
        sums = a[:, max(0, c - 2) : c + 3].square().sum(1)
        expected[:, c] = a[:, c] / (2 + 1e-4 * sums) ** 0.75
    torch.testing.assert_close(response_norm()(a), expected)


def test_order_of_pooling_and_normalization():
    names = {form: list(dict(create_model(form).stem.named_children())) for form in ("alexnet_227", "alexnet_two_tower")}
    assert names == {"alexnet_227": ["conv", "activation", "pool", "norm"],
                     "alexnet_two_tower": ["conv", "activation", "norm", "pool"]}


def test_initialization_of_the_paper():
    torch.manual_seed(0)
    model = create_model("alexnet_two_tower")
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert [layer.bias[0].item() for layer in layers] == [0, 1, 0, 1, 1, 1, 1, 0]
    assert all(abs(layer.weight.std().item() - 0.01) < 1e-3 for layer in layers)


@pytest.mark.parametrize("overrides, message", [
    ({"widths": (96, 256, 384)}, "five convolutions"),
    ({"groups": 5}, "groups=5 does not divide"),
    ({"groups": 0}, "groups=0"),
    ({"norm": "batch"}, "norm='batch'"),
    ({"activation": "gelu"}, "activation='gelu'"),
    ({"drop": "all"}, "drop='all'"),
    ({"initialization": "zero"}, "initialization='zero'; choose one of 'pytorch', 'paper', 'he', 'xavier'"),
    ({"image_size": 40}, "image_size=40 is too small"),
])
def test_bad_arguments_are_named(overrides, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        create_model("alexnet", **overrides)


def test_image_of_another_size_is_refused_by_the_form_that_cannot_take_it():
    with torch.device("meta"):
        model = create_model("alexnet_227")
    with pytest.raises(ValueError, match="the last map is 5x5, but FC6 needs 6x6"):
        model(torch.empty(1, 3, 224, 224, device="meta"))
