"""DenseNet: growth, compression, and recomputation that changes nothing but memory."""

import pytest
import torch

from cnnlib import create_model
from cnnlib.models.densenet import DenseBlock, DenseLayer, DenseNet


def test_a_layer_reads_everything_before_it_and_keeps_it():
    torch.manual_seed(0)
    block = DenseBlock(6, 4, 3).eval()
    x = torch.randn(2, 6, 5, 5)
    out = block(x)
    assert out.shape == (2, 6 + 3 * 4, 5, 5) and block.out_channels == 18
    assert torch.equal(out[:, :6], x)
    features = x
    for layer in block:
        features = torch.cat([features, layer(features)], dim=1)
    assert torch.equal(out, features)
    assert torch.equal(block[1](x, block[0](x)), block[1](torch.cat([x, block[0](x)], dim=1)))


@pytest.mark.parametrize("bottleneck, expected", [(None, 9 * 30 * 4), (4, 30 * 16 + 9 * 16 * 4)])
def test_weights_of_a_layer(bottleneck, expected):
    layer = DenseLayer(30, 4, bottleneck=bottleneck)
    assert sum(p.numel() for p in layer.parameters() if p.ndim == 4) == expected


@pytest.mark.parametrize("bottleneck", [None, 4])
def test_recomputation_changes_no_number(bottleneck):
    results = []
    for memory_efficient in (False, True):
        torch.manual_seed(0)
        model = create_model("densenet_cifar", bottleneck=bottleneck, memory_efficient=memory_efficient)
        model(torch.randn(4, 3, 16, 16, requires_grad=True)).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append({**gradients, **{f"state of {name}": tensor for name, tensor in model.state_dict().items()}})
        assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    plain, recomputed = results
    assert plain.keys() == recomputed.keys()
    for name in plain:  # the running statistics too: a batch is counted once
        torch.testing.assert_close(recomputed[name], plain[name], rtol=1e-5, atol=1e-6, msg=name)


def test_recomputation_keeps_fewer_tensors():
    """Bytes kept for the backward pass, which in a plain block grow with the square of its depth."""
    kept = {}
    for memory_efficient in (False, True):
        block = DenseBlock(8, 4, 12, memory_efficient=memory_efficient)
        storages = {}

        def remember(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.randn(2, 8, 16, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            out = block(x)
        kept[memory_efficient] = sum(storages.values())
        out.sum().backward()
    assert kept[True] < kept[False] / 4


def test_transitions_compress():
    with torch.device("meta"):
        model = create_model("densenet121")
        uncompressed = create_model("densenet40_k12")
    assert [stage[-1].out_channels for stage in model.stages] == [256, 512, 1024, 1024]
    assert [stage[-1].out_channels for stage in uncompressed.stages] == [16 + 12 * 12 * n for n in (1, 2, 3)]


def test_errors():
    with pytest.raises(ValueError, match="'mnist'.*imagenet, cifar"):
        DenseNet(stem="mnist")
    with pytest.raises(ValueError, match="compression=1.5"):
        DenseNet(compression=1.5)
