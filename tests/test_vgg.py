"""VGG, ZFNet and Network in Network: what the papers say of their shapes, growing VGG, and errors."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.models.nin import MLPConv
from cnnlib.models.vgg import grow
from zoo import randomize


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def map_sizes(name: str, size: int) -> list[tuple[int, int]]:
    """(channels, height) after each convolution and pooling."""
    with torch.device("meta"):
        model = create_model(name)
        sizes = []
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
                module.register_forward_hook(lambda _, args, output: sizes.append(tuple(output.shape[1:3])))
        model(torch.empty(2, 3, size, size))
    return sizes


@pytest.mark.parametrize("name, layers", [("vgg11", 8), ("vgg13", 10), ("vgg16_c", 13), ("vgg16", 13), ("vgg19", 16)])
def test_vgg_configurations(name, layers):
    with torch.device("meta"):
        found = convolutions(create_model(name))
    assert len(found) == layers
    pointwise = [conv for conv in found if conv.kernel_size == (1, 1)]
    assert [conv.out_channels for conv in pointwise] == ([256, 512, 512] if name == "vgg16_c" else [])
    assert all(conv.padding == (1, 1) for conv in found if conv not in pointwise)


def test_grown_vgg_begins_with_the_layers_of_the_shallow_one():
    shallow = randomize(create_model("vgg11_cifar"), seed=1)
    deep = grow(create_model("vgg16_cifar", initialization="paper"), shallow)
    taken = [(0, 0), (1, 0), (2, 0), (2, 1)]  # conv1-1, conv2-1, conv3-1, conv3-2
    for stage, blocks in enumerate(deep.stages):
        for position, block in enumerate(blocks):
            for tensor, source in zip(block.parameters(), shallow.stages[stage][min(position, 1)].parameters()):
                assert torch.equal(tensor, source) == ((stage, position) in taken)
    assert all(map(torch.equal, deep.head.state_dict().values(), shallow.head.state_dict().values()))
    with pytest.raises(ValueError, match="do not fit"):
        grow(create_model("vgg16_cifar", widths=(8, 16, 32, 64, 64)), shallow)


def test_initial_signal_of_a_deep_vgg():
    """The paper's small weights let it die within 16 layers; He's variance keeps it."""
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    sizes = {initialization: create_model("vgg16_cifar", initialization=initialization).stages(images).std().item()
             for initialization in ("paper", "xavier", "he")}
    assert sizes["paper"] < 1e-6 < sizes["xavier"] < 0.1 < sizes["he"] < 10, sizes


def test_zfnet_map_sizes_are_those_of_figure_3():
    assert map_sizes("zfnet", 224) == [
        (96, 110), (96, 55), (256, 26), (256, 13), (384, 13), (384, 13), (256, 13), (256, 6),
    ]


def test_mlpconv_is_a_perceptron_at_every_place():
    layer = MLPConv(5, (7, 6, 4), 3)
    image = torch.randn(1, 5, 3, 3)
    x = image.flatten(1)  # the one patch
    for block in layer:
        x = torch.relu(x @ block.conv.weight.flatten(1).T + block.conv.bias)
    torch.testing.assert_close(layer(image).flatten(1), x)


def test_nin_has_no_parameters_in_its_head():
    model = create_model("nin_cifar")
    assert not list(model.head.parameters())
    assert model(torch.randn(2, 3, 32, 32)).min() >= 0


def test_errors():
    with pytest.raises(ValueError, match="norm='layer'; choose 'batch'"):
        create_model("vgg11_cifar", norm="layer")
    with pytest.raises(ValueError, match="widths=.*depths="):
        create_model("vgg11_cifar", depths=(1, 1))
    with pytest.raises(ValueError, match="initialization='zero'; choose one of library, he, xavier, paper"):
        create_model("vgg11_cifar", initialization="zero")
    with pytest.raises(ValueError, match="16x32 are too small.*32x32"):
        create_model("vgg11_cifar")(torch.zeros(1, 3, 16, 32))
    with pytest.raises(ValueError, match="five convolutions"):
        create_model("zfnet_cifar", widths=(1, 2))
    with pytest.raises(ValueError, match="image_size=3 is too small"):
        create_model("zfnet_cifar", image_size=3)
    with pytest.raises(ValueError, match="last map is 4x4, but FC6 needs 2x2"):
        create_model("zfnet_cifar")(torch.zeros(1, 3, 64, 64))
    for name, least in (("nin", 39), ("nin_cifar", 4)):
        with torch.device("meta"), pytest.raises(ValueError, match=f"{least - 1}x60 are too small.*{least}x{least}"):
            model = create_model(name)
            assert model(torch.zeros(1, 3, least, 60)).ndim == 2
            model(torch.zeros(1, 3, least - 1, 60))
