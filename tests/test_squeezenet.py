"""SqueezeNet: the Fire module's ratio, the bypasses, and the fifty times."""

import pytest
import torch

from cnnlib import create_model, describe
from cnnlib.models.squeezenet import FireModule


def test_fifty_times_fewer_parameters_than_alexnet():
    assert describe("alexnet_two_tower").params / describe("squeezenet1_0").params > 48
    assert describe("alexnet_227").params / describe("squeezenet1_0").params > 49.9
    assert describe("squeezenet1_1").params < describe("squeezenet1_0").params


def test_a_fire_module_has_an_eighth_as_many_squeeze_as_output_channels():
    fire = FireModule(96, 16)
    assert fire(torch.randn(2, 96, 7, 9)).shape == (2, 128, 7, 9) and fire.out_channels == 128
    assert sum(p.numel() for p in fire.parameters()) == 97 * 16 + 17 * 64 + (9 * 16 + 1) * 64


def test_where_the_bypasses_are():
    plain, simple, complex_ = (
        [fire.bypass for fire in create_model(name).modules() if isinstance(fire, FireModule)]
        for name in ("squeezenet1_0", "squeezenet1_0_simple", "squeezenet1_0_complex")
    )
    assert plain == [None] * 8
    assert [bypass is not None for bypass in simple] == [False, True] * 4  # Fire 3, 5, 7 and 9
    assert all(bypass is not None for bypass in complex_)
    assert [sum(p.numel() for p in bypass.parameters()) for bypass in complex_][1::2] == [0] * 4


def test_the_simple_bypass_adds_the_input():
    torch.manual_seed(0)
    fire = FireModule(64, 8, bypass="simple")
    x = torch.randn(1, 64, 5, 5)
    with_bypass = fire(x)
    fire.bypass = None
    torch.testing.assert_close(with_bypass, fire(x) + x)


def test_errors():
    with pytest.raises(ValueError, match="'both'.*'simple' or 'complex'"):
        create_model("squeezenet1_0", bypass="both")
