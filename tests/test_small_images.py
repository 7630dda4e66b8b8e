"""Images that are too small for a network: the error names their size and the smallest that will do, and nothing else changes."""

import copy
import pickle

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.registry import find_variant
from zoo import on_meta, smallest_of_each_kind

KINDS = smallest_of_each_kind(list_models())
FEW = ("squeezenet1_1", "convnext_cifar", "zfnet_cifar", "ecaresnet_d_cifar", "densenet_cifar", "fractalnet_cifar_plain",
       "vgg11_cifar", "resnet20")


def answer(name: str, height: int, width: int) -> tuple[int, ...] | str:
    """The shape of the logits, or what the error says."""
    model = on_meta(name).eval()
    try:
        with torch.no_grad():
            return tuple(model(torch.empty(1, find_variant(name).input_size[0], height, width, device="meta")).shape)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in KINDS])
def test_every_size_passes_or_the_smallest_is_named(name):
    classes = (1, find_variant(name).config.get("num_classes", 1000))
    for side in (1, 4, 21, 34):
        said = answer(name, side, side + 1)
        if said == classes or "FC6 needs" in said:  # built for one size, which its own words name
            continue
        least = int(said.rpartition("x")[2])
        assert said.startswith(f"images of {side}x{side + 1} are too small: ") and said.endswith(f" {least}x{least}")
        assert answer(name, least, least) == classes, f"{least} does not pass either"
        below = answer(name, least - 1, least + 9)
        assert f"images of {least - 1}x{least + 9} are too small" in below or "FC6 needs" in below


def test_other_errors_stay_pytorchs_own():
    model = create_model("squeezenet1_1").eval()
    for images, words in ((torch.zeros(1, 4, 64, 64), "to have 3 channels"), (torch.zeros(3, 64), "Expected 3D"),
                          (torch.zeros(1, 3, 64, 64).double(), "same")):
        with pytest.raises(RuntimeError, match=words):
            model(images)
    seen = []
    model.stem.register_forward_hook(lambda _, __, output: seen.append(output.is_meta))
    with pytest.raises(ValueError, match="images of 9x9 are too small"):
        model(torch.zeros(1, 3, 9, 9))
    assert seen == [False]  # what somebody hung on the network takes no part in the search
    model.stages.register_forward_hook(lambda *_: nn.Conv2d(3, 3, 99)(torch.zeros(1, 3, 9, 9)))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):  # not the network's fault
        model(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_a_network_is_copied_stored_followed_and_compiled_as_any_module():
    torch.manual_seed(0)
    model, images = create_model("squeezenet_cifar").eval(), torch.randn(2, 3, 32, 32)
    expected = model(images)
    assert torch.equal(model(x=images), expected)
    with pytest.raises(ValueError, match="images of 2x32 are too small: SqueezeNet needs at least"):
        model(x=images[:, :, :2])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.fx.symbolic_trace(model),
                  torch.jit.trace(model, images), torch.jit.script(model), torch.export.export(model, (images,)).module(),
                  torch.compile(model, backend="eager", fullgraph=True)):
        torch.testing.assert_close(other(images), expected)
