"""How networks start: the statistics of every tensor beside the twin's, or beside the paper's formula; drop-path rates.

Two samples of n numbers from one distribution have standard deviations within a few 1/sqrt(n) of each other; the
tolerances here are six such errors, so that a test fails for another distribution and not for another seed.
"""

import math

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.layers import DropPath, SqueezeExcitation
from cnnlib.models.cell_search import CellNetwork
from cnnlib.models.convnext import ConvNeXtBlock
from cnnlib.models.resnet import BasicBlock, Bottleneck
from cnnlib.registry import find_variant
from libraries import timm, torchvision
from zoo import on_meta

UNIFORM, NORMAL = 1.8, 3.0  # fourth moment over the square of the second


def shape_of(tensor: torch.Tensor) -> float:
    centred = tensor.double() - tensor.double().mean()
    return (centred**4).mean().item() / centred.square().mean().item() ** 2


def assert_sample(tensor: torch.Tensor, std: float, kurtosis: float, *, mean: float = 0.0, samples: int = 1) -> None:
    """The numbers have this mean, deviation and shape, up to chance; `samples` is 2 if those are measured too."""
    error = math.sqrt(samples / tensor.numel())
    assert tensor.double().std().item() == pytest.approx(std, rel=6 * error)
    assert tensor.double().mean().item() == pytest.approx(mean, abs=6 * error * std)
    assert tensor.numel() < 1000 or abs(shape_of(tensor) - kurtosis) < 0.1 + 30 * error, "another distribution"


# beside twins


def shallow_resnet(**options) -> nn.Module:
    theirs = torchvision.models.resnet
    return theirs.ResNet(theirs.Bottleneck, [1, 1, 1, 1], **options)


ONE_BLOCK = {"depths": (1, 1, 1, 1)}
SMALL_CONVNEXT = {"depths": (1, 1, 2, 1), "widths": (16, 32, 64, 128)}

STARTS = {  # our network, what to change in it, and the twin, made small where that can be
    "resnet50": ({**ONE_BLOCK, "zero_init_residual": True}, lambda: shallow_resnet(zero_init_residual=True)),
    "resnext50_32x4d": (ONE_BLOCK, lambda: shallow_resnet(groups=32, width_per_group=4)),
    "densenet121": ({"depths": (2, 2, 2, 2)}, lambda: torchvision.models.DenseNet(32, (2, 2, 2, 2), 64)),
    "mobilenet_v2": ({}, lambda: torchvision.models.mobilenet_v2()),
    "mobilenet_v3_small": ({}, lambda: torchvision.models.mobilenet_v3_small()),
    "shufflenet_v2_x0_5": ({}, lambda: torchvision.models.shufflenet_v2_x0_5()),
    "squeezenet1_1": ({}, lambda: torchvision.models.squeezenet1_1()),
    "regnet_y_400mf": ({}, lambda: torchvision.models.regnet_y_400mf()),
    "efficientnet_b0": ({}, lambda: torchvision.models.efficientnet_b0()),
    "convnext_tiny": (SMALL_CONVNEXT,
                      lambda: timm.create_model("convnext_tiny", depths=(1, 1, 2, 1), dims=(16, 32, 64, 128))),
}
LARGE = {
    "resnet18": ({}, lambda: torchvision.models.resnet18()),
    "wide_resnet50_2": (ONE_BLOCK, lambda: shallow_resnet(width_per_group=128)),
    "googlenet": ({}, lambda: torchvision.models.googlenet(init_weights=True)),
    "alexnet": ({}, lambda: torchvision.models.alexnet()),
    "vgg11_bn": ({}, lambda: torchvision.models.vgg11_bn()),
    "convnext_small": ({}, lambda: torchvision.models.convnext_small()),
    "efficientnet_v2_s": ({}, lambda: torchvision.models.efficientnet_v2_s()),
    "regnet_x_400mf": ({}, lambda: torchvision.models.regnet_x_400mf()),
}


@pytest.mark.parametrize("name", [*STARTS, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_every_tensor_starts_like_its_twin(name):
    changes, build_twin = {**STARTS, **LARGE}[name]
    torch.manual_seed(0)
    ours, twin = create_model(name, **changes).state_dict(), build_twin().state_dict()
    compared = 0
    for (key, one), other in zip(ours.items(), twin.values(), strict=True):
        if not one.is_floating_point() or one.numel() == 1:
            continue
        other = other.double()
        if other.min() == other.max():
            assert torch.equal(one.double(), other.view_as(one)), f"{key} is constant in the twin"
        elif one.numel() >= 100:
            compared += 1
            assert_sample(one, other.std().item(), shape_of(other), mean=other.mean().item(), samples=2)
    assert compared >= 9


# beside formulas


def he_fan_out(weight: torch.Tensor) -> float:
    return math.sqrt(2 / (len(weight) * weight[0, 0].numel()))


def he_fan_in(weight: torch.Tensor) -> float:
    return math.sqrt(2 / weight[0].numel())


def pytorch(weight: torch.Tensor) -> float:
    """Uniform within 1 / sqrt(fan_in)."""
    return math.sqrt(1 / (3 * weight[0].numel()))


def glorot(weight: torch.Tensor) -> float:
    return math.sqrt(2 / (weight[0].numel() + len(weight) * weight[0, 0].numel()))


def constant(std: float):
    return lambda weight: std


FAN_OUT, FAN_IN = (he_fan_out, NORMAL), (he_fan_in, NORMAL)
HUNDREDTH = (constant(0.01), NORMAL)
DEFAULT = (pytorch, UNIFORM)
TRUNCATED = (constant(0.02), NORMAL)  # at 2, a hundred deviations away

# network, what to change in it: (deviation and shape of convolutions, of linear layers, the last layer's, the biases)
FORMULAS = [
    ("resnet20", {}, FAN_OUT, DEFAULT, None, None),
    ("plain20", {}, FAN_OUT, DEFAULT, None, None),
    ("preresnet20", {}, FAN_OUT, DEFAULT, None, None),
    ("wide_resnet10_2", {}, FAN_OUT, DEFAULT, None, None),
    ("resnext29_8x4d_narrow", {}, FAN_OUT, DEFAULT, None, None),
    ("seresnet20", {}, FAN_OUT, DEFAULT, None, None),
    ("nasnet_cifar", {}, FAN_OUT, DEFAULT, None, None),
    ("mobilenet_v1_cifar", {}, FAN_OUT, HUNDREDTH, None, 0.0),
    ("densenet_cifar", {}, FAN_IN, DEFAULT, None, 0.0),
    ("fractalnet_cifar", {}, (glorot, UNIFORM), (glorot, UNIFORM), None, 0.0),
    ("convnext_cifar", {}, TRUNCATED, TRUNCATED, None, 0.0),
    ("convnext_step12_few_activations_cifar", {}, TRUNCATED, TRUNCATED, None, None),
    ("squeezenet_cifar", {}, (he_fan_in, UNIFORM), None, HUNDREDTH, 0.0),
    ("nin_cifar", {}, FAN_IN, None, HUNDREDTH, 0.0),
    ("alexnet_cifar", {}, DEFAULT, DEFAULT, None, None),
    ("zfnet_cifar", {"initialization": "paper"}, HUNDREDTH, HUNDREDTH, None, 0.0),
    ("zfnet_cifar", {"initialization": "he"}, FAN_IN, FAN_IN, HUNDREDTH, 0.0),
    ("vgg11_cifar", {"initialization": "library"}, FAN_OUT, HUNDREDTH, None, 0.0),
    ("vgg11_cifar", {"initialization": "he"}, FAN_IN, FAN_IN, HUNDREDTH, 0.0),
    ("vgg11_cifar", {"initialization": "xavier"}, (glorot, UNIFORM), (glorot, UNIFORM), None, 0.0),
    ("vgg11_cifar", {"initialization": "paper"}, HUNDREDTH, HUNDREDTH, None, 0.0),
    ("googlenet_cifar", {"initialization": "library"}, HUNDREDTH, HUNDREDTH, None, None),
]


@pytest.mark.parametrize("name, changes, convolution, linear, last, bias", FORMULAS,
                         ids=[" ".join([name, *changes.values()]) for name, changes, *_ in FORMULAS])
def test_layers_start_by_the_formula(name, changes, convolution, linear, last, bias):
    torch.manual_seed(0)
    check_layers(create_model(name, **changes), convolution, linear, last, bias)


def test_members_of_the_search_space_start_by_the_formula():
    torch.manual_seed(0)
    check_layers(CellNetwork(widths=(32, 64, 128)), FAN_OUT, DEFAULT)


def check_layers(model: nn.Module, convolution: tuple, linear: tuple | None, last=None, bias=None) -> None:
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    compared = 0
    for layer in layers:
        std, kurtosis = convolution if isinstance(layer, nn.Conv2d) else linear
        if last is not None and layer is layers[-1]:
            std, kurtosis = last
        if layer.weight.numel() >= 100:
            compared += 1
            assert_sample(layer.weight, std(layer.weight), kurtosis)
        if bias is not None and layer.bias is not None:
            assert (layer.bias == bias).all()
    assert compared >= 5
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            assert (module.weight == 1).all() and not module.bias.any()


def test_gates_of_senet_start_without_bias():
    gates = [module for module in create_model("seresnet20").modules() if isinstance(module, SqueezeExcitation)]
    assert len(gates) == 9 and not any(gate.squeeze.bias.any() or gate.excite.bias.any() for gate in gates)


def test_biases_of_one_where_alexnet_has_them():
    torch.manual_seed(0)
    model = create_model("alexnet_cifar", initialization="paper")
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        assert_sample(layer.weight, 0.01, NORMAL)
    assert [layer.bias.unique().tolist() for layer in layers] == [[0], [1], [0], [1], [1], [1], [1], [0]]


def test_alexnet_may_start_as_suits_its_unit():
    torch.manual_seed(0)
    for name, spread, kind in (("he", he_fan_in, NORMAL), ("xavier", lambda w: math.sqrt(2 / (w[0].numel() + w[:, 0].numel())), UNIFORM)):
        model = create_model("alexnet_cifar", initialization=name)
        layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        for layer in layers:
            assert_sample(layer.weight, 0.01 if name == "he" and layer is layers[-1] else spread(layer.weight), kind)
            assert not layer.bias.any()


def test_zfnet_may_start_its_first_filters_small():
    torch.manual_seed(0)
    model = create_model("zfnet_cifar", initialization="he, small first")
    first, *others = (module.weight for module in model.modules() if isinstance(module, nn.Conv2d))
    assert_sample(first, 0.01, NORMAL)
    for weight in others:
        assert_sample(weight, he_fan_in(weight), NORMAL)


def test_caffe_start_of_googlenet():
    """Uniform, variance 1 / fan_in; biases 0.2, of the three classifiers 0."""
    torch.manual_seed(0)
    model = create_model("googlenet_2014", width_mult=0.25)
    classifiers = [model.head[-1], model.aux1[-1], model.aux2[-1]]
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for layer in layers:
        if layer.weight.numel() >= 100:
            assert_sample(layer.weight, math.sqrt(1 / layer.weight[0].numel()), UNIFORM)
        assert (layer.bias == (0.0 if layer in classifiers else 0.2)).all()


def test_branches_at_zero():
    """Only the last normalization of each branch starts at 0; layer scale starts where it is told, or is left out."""
    for name, block in (("resnet20", BasicBlock), ("resnet50", Bottleneck)):
        model = create_model(name, zero_init_residual=True, depths=(1, 1, 1), widths=(4, 8, 16))
        last = [module.branch[-1].norm for module in model.modules() if isinstance(module, block)]
        zero = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and not module.weight.any()]
        assert len(last) == 3 and {id(norm) for norm in last} == {id(norm) for norm in zero}
    for layer_scale in (1e-6, 0.3):
        model = create_model("convnext_tiny", **SMALL_CONVNEXT, layer_scale=layer_scale)
        scales = [module.scale for module in model.modules() if isinstance(module, ConvNeXtBlock)]
        assert len(scales) == 5 and all((scale == layer_scale).all() for scale in scales)
    assert not any(key.endswith("scale") for key in on_meta("convnext_cifar").state_dict())


# drop-path


def rates(model: nn.Module) -> list[float]:
    return [module.probability for module in model.modules() if isinstance(module, DropPath)]


DROPPING = [name for family in ("convnext", "efficientnet") for name in list_models(family=family)
            if "step" not in name and find_variant(name).twin]


DEEP = ("b4", "b5", "b6", "b7", "_l")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name.endswith(DEEP) else ())
                                  for name in DROPPING])
def test_drop_path_rates_are_the_twins(name):
    with torch.device("meta"):
        twin = torchvision.models.get_model(find_variant(name).twin.partition(".")[2])
    expected = [module.p for module in twin.modules() if isinstance(module, torchvision.ops.StochasticDepth)]
    assert rates(on_meta(name)) == pytest.approx(expected) and max(expected) > 0


def test_drop_path_rates_of_convnext_are_timms_too():
    with torch.device("meta"):
        ours = create_model("convnext_tiny", depths=(2, 1, 3, 2), drop_path_rate=0.3)
        step = create_model("convnext_step14_layer_norm", depths=(2, 1, 3, 2), drop_path_rate=0.3)
        twin = timm.create_model("convnext_tiny", depths=(2, 1, 3, 2), drop_path_rate=0.3)
    expected = [getattr(block.drop_path, "drop_prob", 0.0) for stage in twin.stages for block in stage.blocks]
    assert rates(ours) == rates(step) == pytest.approx(expected)
    assert expected[0] == 0 and expected[-1] == pytest.approx(0.3)


@pytest.mark.parametrize("name, blocks", [
    ("resnet20", 9), ("resnet50", 16), ("preresnet20", 9), ("wide_resnet10_2", 3), ("wide_resnet50_2", 16),
    ("seresnet20", 9), ("seresnet50", 16), ("resnext29_8x4d_narrow", 9),
])
def test_stochastic_depth_is_linear_from_the_first_block(name, blocks):
    """Block l of L is dropped with probability l / L times the last one's (Huang et al., 2016, equation 4)."""
    with torch.device("meta"):
        model = create_model(name, drop_path_rate=0.4)
    assert rates(model) == pytest.approx([0.4 * number / blocks for number in range(1, blocks + 1)])
    assert not any(rates(on_meta(name)))


def test_drop_path_rates_of_nasnet_grow_from_cell_to_cell():
    """Cell i of n drops with i / n of the last probability, reductions counted; an identity is never dropped."""
    with torch.device("meta"):
        model = create_model("nasnet_6_768")
    cells = [cell for stage in model.stages for cell in stage]
    assert len(cells) == 20
    for number, cell in enumerate(cells, start=1):
        assert {rate for rate in rates(cell) if rate} == {0.4 * number / 20}
    assert sum(rate == 0 for rate in rates(cells[0])) == 2  # the identities of the normal cell's third and fifth row
