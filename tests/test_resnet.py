"""ResNet's own claims: the place of the stride, shortcuts, plain networks, zero residuals, stochastic depth."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnlib import create_model
from cnnlib.analysis import receptive_field
from cnnlib.layers import DropPath, make_shortcut, residual_stages
from cnnlib.models.resnet import BasicBlock, Bottleneck
from zoo import count_macs, count_params, on_meta, randomize


class CountAdditions(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.additions = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.additions += function is torch.ops.aten.add.Tensor
        return function(*args, **(kwargs or {}))


def blocks_of(model: nn.Module) -> list[nn.Module]:
    return [block for stage in model.stages for block in stage]


# the stride


def test_stride_in_the_1x1_saves_three_quarters_of_three_convolutions():
    """C_in * width multiply-adds per position of the larger map, for the first blocks of the last three stages."""
    saved = sum(3 * size * size * channels * width // 4
                for size, channels, width in ((56, 256, 128), (28, 512, 256), (14, 1024, 512)))
    common, _ = count_macs(on_meta("resnet50"), (3, 224, 224))
    paper, _ = count_macs(on_meta("resnet50_v1"), (3, 224, 224))
    assert common - paper == saved
    assert count_params(on_meta("resnet50")) == count_params(on_meta("resnet50_v1"))


@torch.no_grad()
def test_stride_in_the_1x1_never_reads_three_quarters_of_the_input():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 8, 8)
    seen = torch.zeros_like(x)
    seen[:, :, ::2, ::2] = x[:, :, ::2, ::2]
    for stride_in, blind in (("1x1", True), ("3x3", False)):
        block = randomize(Bottleneck(8, 4, 2, stride_in=stride_in)).eval()
        assert torch.equal(block.branch(x), block.branch(seen)) == blind


def test_place_of_the_stride_changes_the_receptive_field():
    """The stem sees 11 pixels; each 3x3 adds twice the stride it works at; one of stride 2 works at the old one."""
    paper = 11 + 2 * (3 * 4 + 4 * 8 + 6 * 16 + 3 * 32)
    common = 11 + 2 * (3 * 4 + (4 + 3 * 8) + (8 + 5 * 16) + (16 + 2 * 32))
    fields = {name: receptive_field(on_meta(name), (3, 224, 224)) for name in ("resnet50", "resnet50_v1")}
    sizes = {name: field["stages.3"].size for name, field in fields.items()}
    assert (paper, common) == (483, 427)
    assert sizes == {"resnet50": (common, common), "resnet50_v1": (paper, paper)}


@torch.no_grad()
def test_map_sizes_of_table_1():
    x = torch.empty(1, 3, 224, 224, device="meta")
    model = on_meta("resnet50")
    x = model.stem(x)
    shapes = [tuple(x.shape[1:])]
    for stage in model.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


# shortcuts


def test_price_of_the_shortcut_options():
    """A is free; B has three projections with normalization in ResNet-34; C one in each of its 16 blocks."""
    with torch.device("meta"):
        counts = {option: count_params(create_model("resnet34", shortcut=option)) for option in (None, "A", "B", "C")}
    projections = {(64, 128): 1, (128, 256): 1, (256, 512): 1}
    everywhere = {(64, 64): 3, (128, 128): 3, (256, 256): 5, (512, 512): 2}
    price = {sizes: sizes[0] * sizes[1] + 2 * sizes[1] for sizes in (*projections, *everywhere)}
    assert counts["A"] == counts[None] == count_params(on_meta("plain34"))
    assert counts["B"] - counts["A"] == sum(price[sizes] * number for sizes, number in projections.items())
    assert counts["C"] - counts["B"] == sum(price[sizes] * number for sizes, number in everywhere.items())


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_padded_shortcut_keeps_every_second_pixel_and_adds_zeros(size):
    x = torch.randn(2, 3, *size)
    out = make_shortcut(3, 8, 2, "A")(x)
    assert out.shape == BasicBlock(3, 8, 2, shortcut="A").branch(x).shape
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2]) and not out[:, 3:].any()


@torch.no_grad()
def test_plain_network_is_the_residual_one_without_its_additions():
    torch.manual_seed(0)
    plain, residual = create_model("plain20").eval(), create_model("resnet20").eval()
    plain.load_state_dict(residual.state_dict(), strict=True)
    for model, expected in ((plain, 0), (residual, 9)):
        with CountAdditions() as counter:
            model(torch.randn(1, 3, 32, 32))
        assert counter.additions == expected


# zero residuals


@torch.no_grad()
def test_network_at_zero_residual_is_its_shortcuts():
    """In training mode too: a normalization with scale 0 puts out its bias, 0. The stem leaves nothing negative."""
    torch.manual_seed(0)
    model = create_model("resnet20", zero_init_residual=True)
    x = model.stem(torch.randn(2, 3, 32, 32))
    assert torch.equal(model.stages[0](x), x)
    assert torch.equal(model.stages(x), F.pad(x[:, :, ::4, ::4], (0, 0, 0, 0, 0, 48)))


def test_initialization():
    torch.manual_seed(0)
    model = create_model("resnet20")
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


# stochastic depth


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation():
    torch.manual_seed(0)
    drop, ones = DropPath(0.3), torch.ones(20_000, 2, 1, 1)
    out = drop(ones)
    assert torch.equal(out[:, 0], out[:, 1]), "a sample is dropped as a whole"
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert out.mean().item() == pytest.approx(1, abs=0.02)  # standard error 0.005
    assert drop.eval()(ones) is ones


@torch.no_grad()
def test_dropped_block_is_its_shortcut():
    torch.manual_seed(0)
    block = randomize(BasicBlock(4, 8, 2, drop_path=0.5)).eval()
    x = torch.randn(16, 4, 6, 6)
    full, skipped, doubled = block(x), block.shortcut(x).relu(), (block.shortcut(x) + 2 * block.branch(x)).relu()
    torch.testing.assert_close(full, (block.shortcut(x) + block.branch(x)).relu())
    block.drop_path.train()
    drops = 0
    for sample, without, kept in zip(block(x), skipped, doubled, strict=True):
        dropped = torch.equal(sample, without)
        drops += dropped
        assert dropped or torch.allclose(sample, kept, atol=1e-5)
    assert 0 < drops < 16


def test_drop_probability_is_linear_over_depth():
    """p of block l of L is l / L * rate: 0.5 at the end and half of that in the middle (Huang et al., 2016)."""
    model = create_model("resnet110", drop_path_rate=0.5)
    rates = [block.drop_path.probability for block in blocks_of(model)]
    assert rates == pytest.approx([number / 54 * 0.5 for number in range(1, 55)])


@pytest.mark.parametrize("name", ["preresnet20", "wide_resnet10_2", "resnext29_8x4d_narrow", "seresnet20"])
def test_every_residual_family_takes_stochastic_depth(name):
    with torch.device("meta"):
        model = create_model(name, drop_path_rate=0.2)
    assert blocks_of(model)[-1].drop_path.probability == 0.2


# errors


@pytest.mark.parametrize("name, arguments, message", [
    ("resnet18", {"shortcut": "D"}, "shortcut='D'; choose 'A'"),
    ("resnet18", {"stem": "mnist"}, "stem='mnist'; choose 'imagenet' or 'cifar'"),
    ("resnet18", {"stride_in": "1x1"}, "needs block=Bottleneck"),
    ("resnet50", {"stride_in": "5x5"}, "stride_in='5x5'; choose '3x3' or '1x1'"),
    ("resnet50", {"depths": (3, 4, 6)}, r"depths=\(3, 4, 6\) must name as many stages"),
    ("resnet50", {"depths": (3, 4, 0, 3)}, "none empty"),
    ("resnet20", {"widths": (32, 16, 8)}, "'A' adds channels, but 32 would become 16"),
    ("resnet20", {"drop_path_rate": 1.0}, r"drop_path_rate=1.0 is not in \[0, 1\)"),
    ("plain20", {"drop_path_rate": 0.1}, "without a shortcut would drop everything"),
    ("resnet50", {"shortcut": None}, "shortcut=None makes a plain network, which needs block=BasicBlock"),
])
def test_errors_name_the_value_and_the_choice(name, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


def test_stages_need_blocks():
    with pytest.raises(ValueError, match="none empty"):
        residual_stages(BasicBlock, 4, (), ())
