"""For every network that `list_models()` names: what can be asked without knowing the network.

Builds, shapes and published counts are checked on the meta device, for all; overrides for the smallest of each kind,
where rows of one network class that differ in nothing but numbers are one kind. What needs numbers runs for those of
them that a CPU computes in a moment, found by counting. The mark `slow` holds the same tests for all others.
"""

import copy
import csv
import io
import re
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cnnlib.models
from cnnlib import create_model, describe, list_models, registry
from cnnlib.registry import find_variant
from zoo import count_params, is_quick, macs_and_shape, on_meta, randomize, smallest_input, smallest_of_each_kind

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
    model = randomize(create_model(request.param))
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
