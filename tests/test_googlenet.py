"""GoogLeNet: its module's cost, its heads in training and in evaluation, and the paper's Table 1."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.models.googlenet import TABLE, GoogLeNetOutputs, Inception, InceptionRow, NaiveInception
from libraries import torchvision
from zoo import count_macs, count_params, randomize

ROOT = Path(__file__).parents[1]


def silence_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def test_auxiliary_heads_speak_in_training_only():
    model = create_model("googlenet_cifar")
    images = torch.randn(2, 3, 32, 32)
    outputs = model(images)
    assert isinstance(outputs, GoogLeNetOutputs) and outputs[0] is outputs.logits
    assert [output.shape for output in outputs] == [(2, 10)] * 3
    assert model.eval()(images).shape == (2, 10)
    assert create_model("googlenet_cifar", auxiliary=False)(images).shape == (2, 10)


def test_evaluation_does_not_depend_on_the_auxiliary_heads():
    full, bare = create_model("googlenet_cifar").eval(), create_model("googlenet_cifar", auxiliary=False).eval()
    bare.load_state_dict({key: value for key, value in full.state_dict().items() if not key.startswith("aux")})
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(full(images), bare(images))


def test_training_outputs_equal_torchvision():
    twin = silence_dropout(randomize(torchvision.models.googlenet(init_weights=False)))
    ours = silence_dropout(create_model("googlenet"))
    ours.load_state_dict(dict(zip(ours.state_dict(), twin.state_dict().values(), strict=True)))
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = ours(images), twin(images)
    for name, expected in (("logits", other.logits), ("aux1", other.aux_logits1), ("aux2", other.aux_logits2)):
        torch.testing.assert_close(getattr(one, name), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("auxiliary, params", [(False, 6_998_552), (True, 13_378_280)])
def test_published_form_counts(auxiliary, params):
    """6,998,552: the deployed model of the Caffe replication; 13,378,280 with both auxiliary heads."""
    with torch.device("meta"):
        assert count_params(create_model("googlenet_2014", auxiliary=auxiliary)) == params


def test_table_1():
    """Output sizes and operations (millions of multiply-adds) as the paper prints them, but for two of its rows.

    4a has 73.6M, which the paper cuts to 73M, and 5a 51.1M where the paper prints 54M. Its column of parameters fits
    no way of counting.
    """
    with (ROOT / "data/googlenet_table1.csv").open(encoding="utf-8") as file:
        printed = {row["row"]: row for row in csv.DictReader(file) if row["row"] in TABLE}
    with torch.device("meta"):
        model = create_model("googlenet_2014").eval()
        x = model.stem(torch.empty(1, 3, 224, 224))
    names, differing = iter(TABLE), []
    for block in (block for stage in model.stages for block in stage):
        x = block(x)
        if isinstance(block, Inception):
            name = next(names)
            channels, height, width = x.shape[1:]
            assert printed[name]["output"] == f"{height}x{width}x{channels}"
            weights = sum(p.numel() for key, p in block.named_parameters() if key.endswith("weight"))
            if round(weights * height * width / 1e6) != int(printed[name]["ops"].rstrip("M")):
                differing.append(name)
    assert differing == ["4a", "5a"]


def test_naive_and_bottlenecked_module():
    """The worked example at 28x28x256: 854M operations and 672 channels, against 271M and 480."""
    with torch.device("meta"):
        naive = NaiveInception(256, 128, 192, 96)
        slim = Inception(256, InceptionRow(128, 64, 192, 64, 96, 64))
    macs, shape = count_macs(naive, (256, 28, 28))
    assert (macs, shape[1]) == (28 * 28 * 256 * (128 + 9 * 192 + 25 * 96), naive.out_channels)
    assert (round(macs / 1e6), naive.out_channels) == (854, 672)
    macs, shape = count_macs(slim, (256, 28, 28))
    assert shape[1] == slim.out_channels == 480
    assert macs == 28 * 28 * (256 * (128 + 64 + 64 + 64) + 9 * 64 * 192 + 25 * 64 * 96)
    assert round(macs / 1e6) == 271


def test_errors():
    with pytest.raises(ValueError, match="norm='layer'; choose one of 'batch'"):
        create_model("googlenet", norm="layer")
    with pytest.raises(ValueError, match="width_mult=0.01"):
        create_model("googlenet", width_mult=0.01)
    model = create_model("googlenet_cifar")
    for stem, pool, least in (("imagenet", 2, 15), ("imagenet", 3, 31), ("cifar", 2, 4), ("cifar", 3, 8)):
        with torch.device("meta"):
            model = create_model("googlenet", stem=stem, last_pool_size=pool).eval()
            assert model(torch.empty(1, 3, least, 40)).shape == (1, 1000)
            with pytest.raises(ValueError, match=f"{least - 1}x40 are too small.*{least}x{least}"):
                model(torch.empty(1, 3, least - 1, 40))
    with pytest.raises(ValueError, match="7x7 are too small.*8x8"):
        model(torch.zeros(2, 3, 7, 7))
    with torch.device("meta"), pytest.raises(ValueError, match="maps of 14x14.*not 8x8"):
        create_model("googlenet_2014")(torch.zeros(2, 3, 128, 128))
