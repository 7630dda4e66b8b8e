"""ResNeXt: its three forms are one function, and cardinality can grow at constant cost."""

from itertools import permutations

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.models.resnext import FORMS, GroupedBranches, ResNeXtBlock, convert
from zoo import count_params, on_meta, randomize


def build(form: str, seed: int) -> nn.Module:
    branches = FORMS[form](16, 24, 2, cardinality=4, group_width=3)
    return randomize(branches.double(), seed=seed)


@pytest.mark.parametrize("source, target", permutations(FORMS, 2))
@pytest.mark.parametrize("training", [False, True])
def test_forms_are_equal(source, target, training):
    """Outputs, input gradients and updated statistics agree to rounding, in double precision."""
    torch.manual_seed(0)
    one, other = build(source, 1).train(training), build(target, 2).train(training)
    x = torch.randn(2, 16, 7, 7, dtype=torch.float64, requires_grad=True)
    assert not torch.allclose(one.eval()(x), other.eval()(x))
    one.train(training), other.train(training)
    convert(one, other)
    out, same = one(x), other(x)
    torch.testing.assert_close(out, same, rtol=0, atol=1e-12)
    towards = torch.randn_like(out)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, towards)[0] for y in (out, same)), rtol=0, atol=1e-10)
    states = one.grouped_state(), other.grouped_state()
    assert states[0].keys() == states[1].keys()
    for key, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][key], rtol=0, atol=1e-12, msg=key)


def test_conversion_copies_and_does_not_share():
    one, other = build("grouped", 1), build("summed", 2)
    convert(one, other)
    before = other.grouped_state()["1.conv.weight"].clone()
    nn.init.zeros_(one[1].conv.weight)
    assert torch.equal(other.grouped_state()["1.conv.weight"], before)


@torch.no_grad()
def test_whole_network_in_every_form():
    torch.manual_seed(0)
    grouped = randomize(create_model("resnext29_8x4d_narrow")).double().eval()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    for form in ("concatenated", "summed"):
        model = create_model("resnext29_8x4d_narrow", form=form).double().eval()
        assert count_params(model) == count_params(grouped)
        for part in ("stem", "head"):
            getattr(model, part).load_state_dict(getattr(grouped, part).state_dict())
        for ours, theirs in zip(grouped.stages.children(), model.stages.children(), strict=True):
            for source, target in zip(ours, theirs, strict=True):
                convert(source.branch, target.branch)
                target.shortcut.load_state_dict(source.shortcut.state_dict())
        torch.testing.assert_close(model(x), grouped(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cardinality, width", [(1, 64), (2, 40), (4, 24), (8, 14), (32, 4)])
def test_table_2_of_the_paper(cardinality, width):
    """C * (256 d + 3 * 3 * d * d + d * 256) weights, about 70k for every pair of the table."""
    with torch.device("meta"):
        block = GroupedBranches(256, 256, 1, cardinality=cardinality, group_width=width)
    weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Conv2d))
    assert weights == cardinality * (256 * width + 9 * width * width + width * 256)
    assert weights == pytest.approx(70_000, rel=0.05)


def test_one_branch_is_a_bottleneck():
    with torch.device("meta"):
        model = create_model("resnext50_32x4d", cardinality=1, base_width=64)
    bottlenecks = on_meta("resnet50")
    assert [t.shape for t in model.state_dict().values()] == [t.shape for t in bottlenecks.state_dict().values()]


@pytest.mark.parametrize("arguments, message", [
    ({"cardinality": 0}, "cardinality=0 and base_width=4 must be at least 1"),
    ({"widths": (256, 300, 1024, 2048)}, r"widths=\(256, 300, 1024, 2048\): make each width a multiple of the first"),
    ({"widths": (250, 500, 1000, 2000)}, r"widths\[0\]=250 must be a multiple of 4"),
    ({"form": "d"}, "form='d'; choose one of grouped, concatenated, summed"),
    ({"stem": "mnist"}, "stem='mnist'"),
])
def test_errors(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model("resnext50_32x4d", **arguments)


def test_block_rejects_an_unknown_form():
    with pytest.raises(ValueError, match="form='d'"):
        ResNeXtBlock(8, 8, cardinality=2, group_width=2, form="d")
