"""NASNet, EfficientNet, RegNet and ConvNeXt: what the tests of all networks do not ask."""

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.models import convnext, efficientnet, nasnet, regnet
from cnnlib.registry import find_variant


# NASNet


def test_a_nasnet_cell_hands_on_a_pair():
    cell = nasnet.Cell(nasnet.NORMAL, nasnet.NORMAL_OUTPUT, (10, 6), 4).eval()
    x, previous = torch.randn(1, 10, 8, 8), torch.randn(1, 6, 8, 8)
    out, handed_on = cell((x, previous))
    assert out.shape == (1, 6 * 4, 8, 8) and handed_on is x
    reduction = nasnet.Cell(nasnet.REDUCTION, nasnet.REDUCTION_OUTPUT, (10, 6), 4, 2, hand_on_previous=True).eval()
    out, handed_on = reduction((x, previous))
    assert out.shape == (1, 4 * 4, 4, 4) and handed_on is previous


def test_unused_states_are_concatenated():
    """And one state more: in the normal cell h_{i-1}, in the reduction cell the second row's result."""
    for rows, output, extra in ((nasnet.NORMAL, nasnet.NORMAL_OUTPUT, {1}),
                                (nasnet.REDUCTION, nasnet.REDUCTION_OUTPUT, {3})):
        used = {row.left_input for row in rows} | {row.right_input for row in rows}
        assert set(output) == set(range(len(rows) + 2)) - used | extra


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("operation", [nasnet.separable_5x5, nasnet.average_pool, nasnet.max_pool, nasnet.identity])
def test_operations_halve_upwards(operation, size):
    x = torch.randn(1, 4, size, size)
    assert operation(4, 4, 2)(x).shape == (1, 4, 4, 4)
    assert operation(4, 6, 1)(x).shape == (1, 6, size, size)


def test_factorized_reduction_sees_even_and_odd_pixels():
    layer = nasnet.FactorizedReduction(1, 2).eval()
    nn.init.ones_(layer.even[1].weight)
    nn.init.ones_(layer.odd[2].weight)
    image = torch.arange(16.0).view(1, 1, 4, 4)
    out = layer(image) * (1 + 1e-3) ** 0.5
    torch.testing.assert_close(out[0, 0], image[0, 0, ::2, ::2])
    torch.testing.assert_close(out[0, 1], image[0, 0, 1::2, 1::2])


def test_nasnet_drops_more_with_depth():
    model = create_model("nasnet_large", depth=1, width=8)
    rates = [module.probability for module in model.modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3) and [rate for rate in rates if rate] == sorted(r for r in rates if r)
    with pytest.raises(ValueError, match="stem='mnist'"):
        create_model("nasnet_mobile", stem="mnist")


# EfficientNet


@pytest.mark.parametrize("number, phi", [(2, 1), (3, 2)])
def test_compound_scaling_gives_the_released_networks_it_was_rounded_to(number, phi):
    depth_mult, width_mult, resolution = efficientnet.compound_scaling(phi)
    row = find_variant(f"efficientnet_b{number}")
    assert round(depth_mult, 1) == row.config["depth_mult"]
    assert round(width_mult, 1) == row.config["width_mult"]
    assert abs(resolution - row.input_size[1]) < 5


def test_one_step_of_compound_scaling_doubles_the_work():
    depth_mult, width_mult, resolution = efficientnet.compound_scaling(1)
    assert depth_mult * width_mult**2 * (resolution / 224) ** 2 == pytest.approx(2, rel=0.05)


def test_drop_path_drops_whole_branches():
    torch.manual_seed(0)
    block = efficientnet.MBConv(8, 8, drop_path=0.5)
    x = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        kept = ((block(x) - x).abs().amax((1, 2, 3)) > 0).float().mean()
        assert 0.3 < kept < 0.7
        block.eval()
        assert ((block(x) - x).abs().amax((1, 2, 3)) > 0).all()


# RegNet


def test_widths_of_the_paper_follow_from_its_rule():
    """RegNetX-3.2GF and RegNetX-800MF as the paper's Figure 15 prints them."""
    assert [row[:2] for row in regnet.stage_table(25, 88, 26.31, 2.25, 48)] == [(96, 2), (192, 6), (432, 15), (1008, 2)]
    assert [row[:2] for row in regnet.stage_table(16, 56, 35.73, 2.28, 16)] == [(64, 1), (128, 3), (288, 7), (672, 5)]


def test_regnet_errors():
    with pytest.raises(ValueError, match="w_0=20"):
        regnet.quantized_linear_widths(10, 20, 20.0, 2.5)
    with pytest.raises(ValueError, match="gives 4 stages, strides=.* has 2"):
        create_model("regnet_x_400mf", strides=(2, 2))


# ConvNeXt


def test_every_step_changes_what_it_says_and_no_more():
    names = list_models("convnext_step??_*")
    steps = [name for name in names if not name.endswith("_cifar")]
    assert [int(name[13:15]) for name in steps] == list(range(len(convnext.STEPS)))
    assert [name + "_cifar" for name in steps] == [name for name in names if name.endswith("_cifar")]
    for before, after, (_, _, change) in zip(steps, steps[1:], convnext.STEPS[1:]):
        old, new = find_variant(before).config, find_variant(after).config
        assert {key for key in new if new[key] != old.get(key)} == set(change)


def test_the_steps_lead_to_convnext():
    """The blocks have the same filters; what is left is downsampling by layers of their own, and their norms."""
    def filters(block: nn.Module) -> list[int]:
        return [parameter.numel() for parameter in block.parameters() if parameter.ndim in (2, 4)]

    for last, end in (("convnext_step14_layer_norm", "convnext_tiny"),
                      ("convnext_step14_layer_norm_cifar", "convnext_cifar")):
        with torch.device("meta"):
            last, end = create_model(last), create_model(end)
        for before, after in zip(last.stages, end.stages, strict=True):
            count = len(before) - 1  # all blocks but the first, which changes the shape
            assert [filters(block) for block in before[-count:]] == [filters(block) for block in after[-count:]]


def test_few_norms_and_few_activations():
    def count(name: str, kinds: tuple) -> int:
        with torch.device("meta"):
            return sum(isinstance(module, kinds) for module in create_model(name).stages[0][1].modules())

    norms, activations = (nn.BatchNorm2d, nn.LayerNorm), (nn.ReLU, nn.GELU)
    assert [count(f"convnext_step{step}_cifar", norms)
            for step in ("11_gelu", "12_few_activations", "13_few_norms", "14_layer_norm")] == [3, 3, 1, 1]
    assert [count(f"convnext_step{step}_cifar", activations)
            for step in ("11_gelu", "12_few_activations", "13_few_norms", "14_layer_norm")] == [3, 1, 1, 1]


def test_convnext_errors():
    with pytest.raises(ValueError, match="layout='basic'"):
        create_model("convnext_step00_resnet50", layout="basic")
    with pytest.raises(ValueError, match="patch_size=3"):
        create_model("convnext_step00_resnet50", patch_size=3)
