"""For every network that `list_models()` names: what can be asked without knowing the network.

Builds, shapes and published counts are checked on the meta device, for all; overrides for the smallest of each kind,
where rows of one network class that differ in nothing but numbers are one kind. What needs numbers runs for those of
them that a CPU computes in a moment, found by counting. The mark `slow` holds the same tests for all others.
"""

import copy
import csv
import inspect
import io
import re
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cnnlib.models
from cnnlib import create_model, describe, list_models, registry
from cnnlib.models import mobilenet_v4
from cnnlib.registry import find_variant
from zoo import (
    count_params, is_quick, macs_and_shape, on_meta, randomize, size_of, smallest_input, smallest_of_each_kind, with_random_tensors
)

ROOT = Path(__file__).parents[1]
NAMES = list_models()
KINDS = smallest_of_each_kind(NAMES)
PUBLISHED = [
    {**row, "file": path.name} for path in sorted((ROOT / "data/published").glob("*.csv"))
    for row in csv.DictReader(path.open(encoding="utf-8"))
]
BIBLIOGRAPHY = re.findall(r"^@\w+\{(\w+),", (ROOT / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
QUANTITIES = re.compile(r"(params|macs|depth)(_disputed)?|(top1|top5|cifar10|cifar100)_(error|accuracy)")


def row_id(row: dict) -> str:
    return f"{row['name']}-{row['quantity']}"


# on the meta device, for all


class AllOnMeta(TorchDispatchMode):
    """Refuses any operation whose result lies on a real device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            assert not isinstance(value, torch.Tensor) or value.is_meta, f"{function} made a tensor on {value.device}"
        return result


def mark_slow(names: list[str], quick: list[str]) -> list:
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", mark_slow(NAMES, KINDS))
def test_overridden_build_allocates_nothing_and_has_the_shape_asked_for(name):
    _, height, width = find_variant(name).input_size
    with torch.device("meta"), AllOnMeta():
        model = create_model(name, num_classes=7, in_channels=2)
        assert model.training
        with torch.no_grad():
            assert model.eval()(torch.empty(1, 2, height, width)).shape == (1, 7)


def test_initialization_is_left_out_on_the_meta_device_alone():
    with torch.device("meta"):
        on_no_device = create_model("resnet20")
        assert not torch.overrides._get_current_function_mode_stack()[1:]  # nothing stays behind
    on_cpu = create_model("resnet20")
    assert {name: tensor.shape for name, tensor in on_no_device.state_dict().items()} == \
        {name: tensor.shape for name, tensor in on_cpu.state_dict().items()}
    assert all(p.std() > 0 for p in on_cpu.parameters() if p.dim() > 1)
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in on_cpu.modules()
               if isinstance(norm, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("name", NAMES)
def test_build_logits_and_description(name):
    variant = find_variant(name)
    model = on_meta(name)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert {"stem", "stages", "head"} <= {child for child, _ in model.named_children()}
    assert macs_and_shape(name)[1] == (1, variant.config.get("num_classes", 1000))
    assert not variant.twin or re.fullmatch(r"(torchvision|timm)\.\w+", variant.twin)
    assert variant.input_size[0] in (1, 3) and variant.summary and not variant.summary.endswith(".")
    assert variant.cite in BIBLIOGRAPHY


# published figures


def as_number(printed: str) -> tuple[Decimal, Decimal]:
    """`"0.27M"` -> (270000, 10000): the value and what one unit of its last digit is worth."""
    number, unit = re.fullmatch(r"([\d.,]+)\s*([KMBG]?)", printed).groups()
    scale = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}[unit]
    value = Decimal(number.replace(",", ""))
    return value * scale, Decimal(1).scaleb(value.as_tuple().exponent) * scale


@pytest.mark.parametrize("row", [row for row in PUBLISHED if row["quantity"] in ("params", "macs")], ids=row_id)
def test_published_counts(row):
    counted = count_params(on_meta(row["name"])) if row["quantity"] == "params" else macs_and_shape(row["name"])[0]
    value, last_digit = as_number(row["value"])
    rounded = (counted / last_digit).quantize(Decimal(1), ROUND_HALF_UP) * last_digit
    assert rounded == value, f"counted {counted:,}; {row['source']} prints {row['value']}"


def test_published_rows_are_complete():
    for row in PUBLISHED:
        assert row["name"] in NAMES, row
        assert QUANTITIES.fullmatch(row["quantity"]), row
        assert row["value"] and row["source"] and row["cite"] in BIBLIOGRAPHY, row


def test_every_network_can_be_checked_against_somebody_else():
    """A twin in a public library, or a published count; only networks of our own making have neither, and their rows say so."""
    counted = {row["name"] for row in PUBLISHED if row["quantity"].startswith(("params", "macs"))}
    rows = {name: find_variant(name) for name in NAMES}
    assert not [name for name, row in rows.items()
                if not row.twin and name not in counted and not row.summary.startswith(("small-image form", "made up"))]


# with numbers, for networks that are quick


@pytest.fixture(scope="module", params=mark_slow(NAMES, [name for name in KINDS if is_quick(name)]))
def network(request):
    """(network with random tensors, two images)."""
    torch.manual_seed(0)
    model = with_random_tensors(request.param)
    return model, torch.randn(2, *smallest_input(request.param))


def test_a_gradient_reaches_every_parameter(network):
    """In evaluation, where nothing is dropped, or in training, where auxiliary heads speak."""
    model, images = network
    torch.manual_seed(0)
    for mode in (False, True):
        outputs = tree_leaves(model.train(mode)(images))
        sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    unreached = [name for name, parameter in model.named_parameters()
                 if parameter.grad is None or not parameter.grad.any()]
    broken = [name for name, parameter in model.named_parameters()
              if parameter.grad is not None and not parameter.grad.isfinite().all()]
    model.zero_grad()
    assert not unreached and not broken


@torch.no_grad()
def test_images_of_a_batch_do_not_meet_in_evaluation(network):
    """In double precision, since deep random networks with gates amplify the rounding of single precision."""
    model, images = network
    model, images = copy.deepcopy(model).double().eval(), images.double()
    together = model(images)
    apart = torch.cat([model(image) for image in images.split(1)])
    assert together.isfinite().all()
    assert not torch.equal(together[0], together[1])
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-6 * together.abs().max().item())


@torch.no_grad()
def test_the_state_makes_a_round_trip(network):
    model, images = network
    model.eval()
    before = model(images)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    randomize(model, seed=1)
    assert not torch.equal(model(images), before)
    file.seek(0)
    model.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(model(images), before)


# the registry


def test_unknown_names():
    with pytest.raises(ValueError, match="'alexnet'"):
        create_model("alexnett")
    with pytest.raises(ValueError, match="list_models"):
        describe("qqqqqqqqq")
    with pytest.raises(ValueError, match="alexnet"):
        list_models(family="qqq")
    with pytest.raises(ValueError, match="no argument 'widdths'; it takes .*widths"):
        create_model("alexnet", widdths=(1, 2, 3, 4, 5))


@pytest.mark.parametrize("name, arguments, words", [
    ("resnet20", {"num_classes": 0}, "num_classes=0 must be a whole number of at least 1"),
    ("resnet20", {"num_classes": -1}, "num_classes=-1 must be a whole number of at least 1"),
    ("resnet20", {"num_classes": 2.0}, r"num_classes=2\.0 must be a whole number"),
    ("resnet20", {"num_classes": "10"}, "num_classes='10' must be a whole number"),
    ("squeezenet_cifar", {"num_classes": True}, "num_classes=True must be a whole number"),
    ("lenet5", {"in_channels": 0}, "in_channels=0 must be a whole number of at least 1"),
    ("resnet20", {"in_channels": None}, "in_channels=None must be a whole number"),
    ("resnet20", {"widths": (16, 0, 64)}, r"widths=\(16, 0, 64\) must be a sequence, each a whole number of at least 1"),
    ("resnet20", {"depths": 3}, "depths=3 must be a sequence, each a whole number"),
    ("resnet20", {"zero_init_residual": 1}, "zero_init_residual=1 must be True or False"),
    ("resnet20", {"block": 3}, "block=3 must be a class"),
    ("vgg11_cifar", {"last_kernel_size": True}, "last_kernel_size=True must be 1 or 3"),
    ("vgg11_cifar", {"map_size": 0}, "map_size=0 must be a whole number of at least 1"),
    ("vgg11_cifar", {"dropout": float("nan")}, "dropout=nan must be a finite number"),
    ("vgg11_cifar", {"dropout": 1.5}, r"cannot be built with dropout=1\.5: dropout probability"),
    ("alexnet_cifar", {"first_conv": (5, 2)}, r"first_conv=\(5, 2\) must be 3 values: a whole number of at least 0, a"),
    ("densenet_cifar", {"depths": ()}, r"cannot be built with depths=\(\): no stage is left"),
    ("densenet_cifar", {"bottleneck": 0.5}, r"bottleneck=0\.5 must be a whole number of at least 1 or None"),
    ("starnet_cifar", {"stem_stride": 0}, "stem_stride=0 must be a whole number of at least 1"),
    ("fractalnet_cifar_plain", {"depth": -1}, "depth=-1 must be a whole number of at least 1"),
    ("fractalnet_cifar_plain", {"dropout": 0.2}, r"dropout=0\.2 must be a sequence, each a finite number"),
    ("hrnet_cifar", {"exchanges": ()}, r"exchanges=\(\) must name at least one stage"),
    ("convnext_cifar", {"depths": (1, 2)}, r"depths=\(1, 2\) and widths=\(36, 72, 144, 288\) must name equally many"),
    ("convnext_step00_resnet50_cifar", {"kernel_size": 2}, "kernel_size=2 must be odd"),
    ("efficientnet_b0_cifar", {"drop_path_rate": 1.0}, r"drop_path_rate=1\.0 is not in \[0, 1\)"),
    ("efficientnet_b0_cifar", {"depth_mult": 0.0}, r"'efficientnet_b0_cifar' cannot be built with depth_mult=0\.0: "),
    ("efficientnet_b0_cifar", {"stages": ("x",)}, r"stages=\('x',\) must be a sequence, each Stage"),
    ("mobilenet_v4_conv_small_cifar", {"activation": "relu"}, "activation='relu' must be what can be called"),
])
def test_values_of_which_no_network_can_be_made_are_refused_by_name(name, arguments, words):
    with torch.device("meta"), pytest.raises(ValueError, match=words):
        create_model(name, **arguments)


def test_values_of_other_types_that_mean_the_same_are_taken():
    with torch.device("meta"):
        model = create_model("densenet_cifar", num_classes=np.int64(7), depths=[2, 2, 2], bottleneck=None, compression=1)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 7)
        assert create_model("convnext_cifar", layer_scale=1).stages[0][0].scale.dtype == torch.float32
        assert create_model("alexnet", first_conv=(11, 4, 0), pool_padding=1).stem.conv.padding == (0, 0)
        assert create_model("vgg11_cifar", dropout=0).head[4].p == 0
    rows = ((mobilenet_v4.Conv(3, 8, 2), mobilenet_v4.MQA(2, 4)),)
    for given, start in ((0, 0), (None, 1e-5)):
        [[_, attention]] = create_model("mobilenet_v4_conv_small_cifar", stages=rows, layer_scale=given).stages
        assert (attention.scale.factor == start).all()
    with pytest.raises(ValueError, match=r"unknown model \['resnet20'\]"):
        create_model(["resnet20"])


def by_network() -> dict[type, str]:
    """The row with the fewest modules of each class of network."""
    return {find_variant(name).network: name for name in sorted(NAMES, key=lambda name: size_of(name)[1], reverse=True)}


ODD_VALUES = (None, "x", -1, 0, 1.5, 2, True, float("nan"), (), (0,), (1, 2), [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("name", by_network().values())
def test_odd_values_of_every_argument_make_a_network_or_are_named(name):
    variant = find_variant(name)
    channels, height, width = variant.input_size
    for argument in inspect.signature(variant.network).parameters:
        for value in ODD_VALUES:
            with torch.device("meta"), torch.no_grad():
                try:
                    model = create_model(name, **{argument: value}).eval()
                except ValueError as error:
                    assert f"{argument}=" in str(error), f"{argument}={value!r}: {error}"
                    continue
                if argument not in ("image_size", "first_conv", "kernel_sizes", "strides", "paddings", "stem_strides"):
                    images = torch.empty(1, value if argument == "in_channels" else channels, height, width)
                    classes = value if argument == "num_classes" else variant.config.get("num_classes", 1000)
                    assert model(images).shape == (1, classes), f"{argument}={value!r}"


NEW_FAMILY = '''
"""A family that exists for one test."""

from torch import nn

from cnnlib.registry import Variant, register


class Tiny(nn.Module):
    def __init__(self, *, in_channels=3, num_classes=1000, width=4):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3)
        self.stages = nn.Sequential()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))


register(Tiny, (Variant("tiny_a", "four channels"), Variant("tiny_b", "eight", {"width": 8})), cite="x", year=2026)
'''


@pytest.fixture
def family_file(tmp_path, monkeypatch):
    """A new file in the folder of the families, and nothing else."""
    monkeypatch.setattr(registry, "_variants", dict(registry._variants))
    (tmp_path / "tiny_family.py").write_text(NEW_FAMILY)
    cnnlib.models.__path__.append(str(tmp_path))
    cnnlib.models.__loader__.exec_module(cnnlib.models)  # looks into the folder again
    yield
    cnnlib.models.__path__.remove(str(tmp_path))
    del sys.modules["cnnlib.models.tiny_family"], cnnlib.models.tiny_family


def test_a_family_registers_by_existing(family_file):
    assert list_models(family="tiny_family") == ["tiny_a", "tiny_b"]
    assert set(list_models()) == {*NAMES, "tiny_a", "tiny_b"}
    assert create_model("tiny_b", num_classes=5)(torch.zeros(1, 3, 8, 8)).shape == (1, 5)
    assert create_model("tiny_b", width=2).stem.out_channels == 2
    assert (describe("tiny_b").year, describe("tiny_b").summary) == (2026, "eight")
    assert describe("tiny_b").params == 8 * 27 + 8 + 8 * 1000 + 1000
    with pytest.raises(ValueError, match="tiny_a"):
        create_model("tiny_aa")
    with pytest.raises(ValueError, match="already registered by 'tiny_family'"):
        registry.register(torch.nn.Identity, [registry.Variant("tiny_a", "the same name twice")], cite="x", year=2026)


def test_the_new_family_is_gone():
    assert list_models() == NAMES
    assert not hasattr(cnnlib.models, "tiny_family")
