"""For every network with a twin in torchvision or timm: the same counts, the same logits, the same gradients.

All tensors of the twin are random, batch-norm statistics included, and move over in order; no table of names. Parameters,
shapes and strides are compared for all networks; multiply-adds and numbers for the smallest of each kind, where rows of one
network class that differ in nothing but numbers are one kind, numbers for the others (and giants with smaller kin) under the
mark `slow`.
"""

import contextlib
import fnmatch
from unittest import mock

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.registry import find_variant
from libraries import timm, torchvision
from zoo import (
    attends, count_macs, count_params, macs_and_shape, on_meta, randomize, shallow, size_of, smallest_input,
    smallest_of_each_kind
)

NAMES = [name for name in list_models() if find_variant(name).twin]
SLOW_TO_INITIALIZE = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}


@contextlib.contextmanager
def regnet_plans():
    """torchvision's RegNet reads its widths out of tensors, which must therefore hold numbers."""
    plan = torchvision.models.regnet.BlockParams
    make = plan.from_init_params

    def on_the_cpu(**arguments):
        with torch.device("cpu"):
            return make(**arguments)

    with mock.patch.object(plan, "from_init_params", on_the_cpu):
        yield


def twin_on_meta(name: str) -> nn.Module:
    variant = find_variant(name)
    library, _, twin = variant.twin.partition(".")
    classes = variant.config.get("num_classes", 1000)
    with torch.device("meta"), regnet_plans():
        if library == "timm":
            return timm.create_model(twin, num_classes=classes)
        return torchvision.models.get_model(twin, num_classes=classes, **SLOW_TO_INITIALIZE.get(twin, {}))


def state_of_twin(ours: nn.Module, twin: nn.Module) -> dict[str, torch.Tensor]:
    """The twin's tensors under our names; a classifier that is a 1x1 convolution there is a matrix here."""
    state = {}
    for (key, own), other in zip(ours.state_dict().items(), twin.state_dict().values(), strict=True):
        state[key] = other.flatten(1) if own.ndim == 2 and other.shape[2:] == (1, 1) else other
    return state


# timm leaves the momentum of the running statistics at PyTorch's default; ours is the authors'.
OWN_MOMENTUM = ("efficientnet_lite*", "mnasnet_a1")


def constants(model: nn.Module, name: str) -> list[tuple]:
    """Those of the normalizations."""
    own = any(fnmatch.fnmatch(name, pattern) for pattern in OWN_MOMENTUM)
    return [(module.eps, None if own else getattr(module, "momentum", None)) for module in model.modules()
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))]


def dropouts(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]


def strides(model: nn.Module) -> list[tuple]:
    """Shapes and strides of the convolutions that leave places out, in order."""
    return [(tuple(module.weight.shape), module.stride) for module in model.modules()
            if isinstance(module, nn.Conv2d) and module.stride != (1, 1)]


FAMILIES = {find_variant(name).family: name for name in sorted(NAMES, key=size_of, reverse=True)}  # to its smallest
QUICK = [name for name in smallest_of_each_kind(NAMES) if size_of(name)[0] < 1e8 or name in FAMILIES.values()]


@pytest.mark.parametrize("name", NAMES)
def test_counts(name):
    ours, twin = on_meta(name), twin_on_meta(name)
    assert count_params(ours) == count_params(twin)
    expected = state_of_twin(ours, twin)
    assert {key: t.shape for key, t in ours.state_dict().items()} == {key: t.shape for key, t in expected.items()}
    assert strides(ours) == strides(twin)
    if name in QUICK:  # rows that differ in numbers alone have the same ways through them
        assert macs_and_shape(name) == count_macs(twin, find_variant(name).input_size)
    assert constants(ours, name) == constants(twin, name)
    if find_variant(name).twin.startswith("torchvision"):  # timm takes the probability from whoever trains
        assert dropouts(ours) == dropouts(twin)


def standardizes(model: nn.Module) -> bool:
    return any(type(module).__name__.startswith(("Std", "ScaledStd")) for module in model.modules())


# In single precision the rounding of an image moves its gradients by up to a fifth, and in double it does not fit in memory.
GIANT = "bit_152x4"


def loaded(name: str, twin: nn.Module, **changes) -> nn.Module:
    """Our network with the twin's own tensors."""
    with torch.device("meta"):
        ours = create_model(name, **changes).eval()
    assert {buffer for buffer, _ in ours.named_buffers()} <= ours.state_dict().keys(), "a buffer outside of the state"
    ours.load_state_dict(state_of_twin(ours, twin), assign=True)
    return ours


def compare_gradients(ours: nn.Module, twin: nn.Module, images: torch.Tensor) -> None:
    def logits_and_gradients(model):  # of one after the other: what the large ones keep for them is gigabytes
        logits = model(images)
        torch.manual_seed(1)
        return logits.detach(), torch.autograd.grad(logits, list(model.parameters()), torch.randn_like(logits), allow_unused=True)

    logits, gradients = logits_and_gradients(ours)
    expected_logits, expected = logits_and_gradients(twin)
    assert_near(logits, expected_logits, 1e-5)
    for (parameter, _), one, other in zip(ours.named_parameters(), gradients, expected, strict=True):
        assert (one is None) == (other is None), f"{parameter} takes part in one of the two only"
        if parameter.endswith("key.1.bias"):  # added to all keys alike, which a softmax does not see: both are rounding
            continue
        if one is not None:  # auxiliary heads are silent in evaluation
            assert_near(one, other.view_as(one), 1e-4, parameter)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES])
def test_logits_and_gradients(name):
    twin = randomize(twin_on_meta(name).to_empty(device="cpu")).eval()
    for module in twin.modules():  # timm's constants outside of the state
        getattr(module, "init_non_persistent_buffers", lambda: None)()
    # Attention's weights in random networks are nearly equal, and their differences rounding; so is much of standardized weights.
    precision = torch.double if (attends(twin) or standardizes(twin)) and name != GIANT else torch.float
    twin = twin.to(precision)
    ours = loaded(name, twin)
    torch.manual_seed(0)
    channels, height, width = smallest_input(name)
    images = torch.randn(2, channels, height, width).to(precision)
    near = 1e-4 if name == GIANT else 1e-5
    if name == GIANT:
        with torch.no_grad():
            assert_near(ours(images), twin(images), near)
    else:
        compare_gradients(ours, twin, images)

    images = images.new_empty(1, channels, height + 33, width + 17).normal_()  # odd and oblong: every rounding shows
    with torch.no_grad():
        try:
            expected = twin(images)
        except RuntimeError:  # the twin enlarges maps by powers of two, and takes only what those divide
            images = images.new_empty(1, channels, height + 64, width + 32).normal_()
            expected = twin(images)
        assert_near(ours(images), expected, near)


@pytest.mark.slow
def test_gradients_of_the_giant():
    """In double precision, with two blocks of each stage."""
    twin = twin_on_meta(GIANT)
    for stage in twin.stages:
        del stage.blocks[2:]
    twin = randomize(twin.to_empty(device="cpu")).double().eval()
    compare_gradients(loaded(GIANT, twin, **shallow(GIANT)), twin, torch.randn(2, *smallest_input(GIANT)).double())


def assert_near(one: torch.Tensor, other: torch.Tensor, tolerance: float, what: str = "logits") -> None:
    """Equal to `tolerance` times the size of the largest entry."""
    size = max(map(abs, torch.stack(other.aminmax()).tolist()))
    assert one.shape == other.shape and 0 < size < float("inf"), f"{what}: {tuple(other.shape)}, largest entry {size}"
    assert torch.equal(one, other) or (one - other).abs().max().item() <= tolerance * size, what
