"""EfficientNet-Lite, RepVGG, MobileNetV4 and what came with them: what the tests of all networks do not ask."""

import copy
import math

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.analysis.depth import depth
from cnnlib.layers import DropPath, standardized
from cnnlib.models import (
    bit, convnext_v2, cspdarknet, efficientnet_lite, fasternet, hrnet, inception_v3, lenet, mobilenet_v4, nfnet, rdnet,
    repvgg, resnet_d, starnet, xception,
)
from cnnlib.registry import find_variant
from libraries import timm, torchvision
from zoo import count_params, on_meta, size_of, with_random_tensors

# one of each family, the start of which is its twin's: weights by order
STARTS = ("efficientnet_lite0", "repvgg_a0", "mobileone_s0", "mobilenet_v4_conv_small", "convnext_v2_atto",
          "inception_v3", "xception", "mnasnet_b1_050", "resnet18d", "rdnet_tiny", "bit_50x1", "nfnet_f0", "starnet_s1",
          "fasternet_t0", "hrnet_w18_small_v2", "mobilenet_v4_hybrid_medium")


def fresh_twin(name: str, **more) -> nn.Module:
    library, _, twin = find_variant(name).twin.partition(".")
    if library == "timm":
        return timm.create_model(twin, **more)
    return torchvision.models.get_model(twin, **({"init_weights": True} if twin == "inception_v3" else {}))


@pytest.mark.parametrize("name", STARTS)
def test_weights_start_like_the_twins(name):
    """Deviations of matrices and filters, and the values of everything else, tensor by tensor."""
    torch.manual_seed(0)
    ours, theirs = create_model(name), fresh_twin(name)
    rows = zip(ours.named_parameters(), theirs.parameters(), strict=True)
    in_branches = name.startswith(("repvgg", "mobileone"))  # timm starts their norms and classifier otherwise
    for (key, one), other in rows:
        if key == "stages.1.auxiliary.2.conv.weight":
            continue  # torchvision means 0.01 too, and sets it on a module without weights
        if one.ndim > 1 and one.numel() >= 200 and not (in_branches and key.startswith("head")):
            tolerance = 6 / math.sqrt(one.numel())  # of six standard errors or so
            assert one.std().item() == pytest.approx(other.std().item(), rel=tolerance, abs=1e-9), key
        elif not in_branches and one.numel() < 200 or one.ndim == 1 and not in_branches and "bias" not in key:
            assert one.mean().item() == pytest.approx(other.mean().item(), abs=0.25), key


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v4_conv_small", "convnext_v2_atto", "resnet18d",
                                  "rdnet_tiny", "nfnet_f0", "starnet_s1", "fasternet_t0", "mobilenet_v4_hybrid_medium"])
def test_blocks_are_dropped_like_the_twins(name):
    with torch.device("meta"):
        ours = create_model(name, drop_path_rate=0.3)
    theirs = fresh_twin(name, drop_path_rate=0.3)
    rates = [block.drop_path.probability for block in ours.modules()
             if isinstance(getattr(block, "drop_path", None), DropPath) and getattr(block, "has_shortcut", True)]
    expected = [block.drop_path.drop_prob for block in theirs.modules()
                if type(getattr(block, "drop_path", None)).__name__ == "DropPath" and getattr(block, "has_skip", True)]
    assert [rate for rate in rates if rate] == pytest.approx([rate for rate in expected if rate])
    assert max(rates) > 0.2
    with pytest.raises(ValueError, match="drop"):
        create_model(name, drop_path_rate=1.5)


def test_drop_path_rates_are_the_authors():
    """Those of FasterNet's configuration files and of RDNet's Table 7."""
    rates = {"fasternet_t0": 0.0, "fasternet_t1": 0.02, "fasternet_t2": 0.05, "fasternet_s": 0.1, "fasternet_m": 0.2,
             "fasternet_l": 0.3, "rdnet_tiny": 0.15, "rdnet_small": 0.35, "rdnet_base": 0.4, "rdnet_large": 0.5}
    found = {name: max(m.probability for m in on_meta(name).modules() if isinstance(m, DropPath)) for name in rates}
    assert found == pytest.approx(rates)


# EfficientNet-Lite


@pytest.mark.parametrize("size", [7, 8, 15, 16])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_same_padding_puts_the_odd_pixel_at_the_end(size, kernel_size):
    conv = efficientnet_lite.SamePadConv2d(1, 1, kernel_size, 2, bias=False)
    nn.init.ones_(conv.weight)
    image = torch.randn(1, 1, size, size + 1)
    out = conv(image)
    assert out.shape == (1, 1, math.ceil(size / 2), math.ceil((size + 1) / 2))
    before = (((size + 1) // 2 - 1) * 2 + kernel_size - size) // 2  # rows of zeros above
    first = image[0, 0, :kernel_size - before].sum(0)
    columns = (((size + 2) // 2 - 1) * 2 + kernel_size - size - 1) // 2
    assert out[0, 0, 0, 0].item() == pytest.approx(first[:kernel_size - columns].sum().item(), abs=1e-5)


def test_stem_head_and_outer_stages_of_lite_do_not_grow():
    small, large = on_meta("efficientnet_lite0"), on_meta("efficientnet_lite4")
    assert [len(stage) for stage in small.stages] == [1, 2, 2, 3, 3, 4, 1]
    assert [len(stage) for stage in large.stages] == [1, 4, 4, 6, 6, 8, 1]
    assert small.stem.conv.out_channels == large.stem.conv.out_channels == 32
    assert small.head[0].conv.out_channels == large.head[0].conv.out_channels == 1280
    with pytest.raises(ValueError, match="width_mult=0 and"):
        create_model("efficientnet_lite0", width_mult=0)


# RepVGG and MobileOne

FUSED = [pytest.param(name, marks=pytest.mark.slow if size_of(name)[0] > 1.5e7 else ())
         for name in list_models(family="repvgg")]


@torch.no_grad()
@pytest.mark.parametrize("name", FUSED)
def test_fusing_changes_the_layers_and_not_the_logits(name):
    model, images = with_random_tensors(name), torch.randn(2, 3, 64, 64)
    before = model.eval()(images)
    fused = copy.deepcopy(model).train().fuse()
    assert not fused.training and not any(isinstance(m, (nn.BatchNorm2d, repvgg.RepBlock)) for m in fused.modules())
    assert (fused(images) - before).abs().max() <= 1e-5 * before.abs().max()
    convs = [m for m in fused.modules() if isinstance(m, nn.Conv2d)]
    gates = sum(2 for m in model.modules() if type(m).__name__ == "SqueezeExcitation")
    assert len(convs) - gates == sum(isinstance(m, repvgg.RepBlock) for m in model.modules())
    assert all(conv.bias is not None for conv in convs)


@pytest.mark.parametrize("name, params, source", [
    ("repvgg_a0", 8_309_384, "OpenVINO's open model zoo: 8.3094 MParams"),
    ("mobileone_s0", 2_078_504, "a public implementation's count after fusing"),
])
def test_published_counts_after_fusing(name, params, source):
    assert count_params(create_model(name).fuse()) == params, source


@torch.no_grad()
def test_a_convolution_swallows_its_normalization():
    norm = nn.BatchNorm2d(1, eps=0.0).eval()
    norm.running_mean[0], norm.running_var[0], norm.weight[0], norm.bias[0] = 3.0, 4.0, 5.0, 7.0
    kernel, bias = repvgg.folded(torch.ones(1, 1, 1, 1), norm)
    assert kernel.item() == 2.5 and bias.item() == 7 - 3 * 2.5  # 5 (w x - 3) / 2 + 7


def test_branches_of_a_block():
    """Identity where shapes agree, 1x1 beside larger kernels, one kernel for each copy."""
    assert repvgg.RepBlock(4, 4).identity is not None and repvgg.RepBlock(4, 4, stride=2).identity is None
    assert repvgg.RepBlock(4, 8).identity is None and repvgg.RepBlock(4, 4, 1).pointwise is None
    assert len(repvgg.RepBlock(4, 4, branches=3).kernels) == 3
    grouped = [block.kernels[0].conv.groups for stage in on_meta("repvgg_b1g4").stages for block in stage]
    assert grouped[:10] == [1, 4, 1, 4, 1, 4, 1, 4, 1, 4]
    with pytest.raises(ValueError, match=r"depths=\(2,\) and widths"):
        create_model("repvgg_a0", depths=(2,))
    with pytest.raises(ValueError, match=r"excited=\(1,\) must name"):
        create_model("mobileone_s0", excited=(1,))


# MobileNetV4


def test_four_forms_of_the_universal_bottleneck():
    forms = {(0, 0): 0, (0, 3): 1, (3, 0): 1, (5, 3): 2}  # feed-forward, MobileNetV2's, ConvNeXt's, extra depthwise
    for (start, middle), filters in forms.items():
        block = mobilenet_v4.UniversalBottleneck(8, 8, start, middle, expansion=2)
        assert sum(m.groups > 1 for m in block.modules() if isinstance(m, nn.Conv2d)) == filters
        assert block(torch.randn(2, 8, 6, 6)).shape == (2, 8, 6, 6)
    halving = mobilenet_v4.UniversalBottleneck(8, 8, 5, 3, 2)
    assert [m.stride[0] for m in halving.modules() if isinstance(m, nn.Conv2d)] == [1, 1, 2, 1]
    assert halving(torch.randn(2, 8, 6, 6)).shape == (2, 8, 3, 3)
    assert mobilenet_v4.UniversalBottleneck(8, 8, 5, 0, 2).start.conv.stride == (2, 2)
    with pytest.raises(ValueError, match="stride=2 needs a depthwise convolution"):
        mobilenet_v4.UniversalBottleneck(8, 8, 0, 0, 2)


@torch.no_grad()
def test_activations_of_the_universal_bottleneck():
    """After the expansion and the middle filter; none after the first filter and the projection."""
    block = mobilenet_v4.UniversalBottleneck(8, 8, 3, 3).eval()
    assert [hasattr(part, "activation") for part in (block.start, block.expand, block.middle, block.project)] == \
        [False, True, True, False]


@torch.no_grad()
def test_attention_by_hand():
    """Two heads on three places: softmax of likeness over sqrt(d), shared keys and values, heads side by side."""
    torch.manual_seed(0)
    block = mobilenet_v4.MobileAttention(4, 2, 3).double().eval()
    nn.init.normal_(block.norm.running_mean), nn.init.uniform_(block.norm.running_var, 0.1, 3.0)
    x = torch.randn(1, 4, 1, 3).double()
    normalized = block.norm(x)[0, :, 0]  # (4, places)
    k, v = (part[0].weight[:, :, 0, 0] @ normalized for part in (block.key, block.value))
    query = block.query.weight[:, :, 0, 0] @ normalized
    heads = []
    for q in (query[:3], query[3:]):
        weights = (q.T @ k / math.sqrt(3)).softmax(1)  # each place over all places
        heads.append(v @ weights.T)
    mixed = block.output.weight[:, :, 0, 0] @ torch.cat(heads)
    torch.testing.assert_close(block(x)[0, :, 0], x[0, :, 0] + 1e-5 * mixed, rtol=0, atol=1e-12)
    with torch.no_grad():
        block.scale.factor.fill_(1.0)
    torch.testing.assert_close(block(x)[0, :, 0], x[0, :, 0] + mixed)
    reduced = mobilenet_v4.MobileAttention(4, 2, 3, 2)
    assert [part[0].stride for part in (reduced.key, reduced.value)] == [(2, 2), (2, 2)]
    assert reduced(torch.randn(2, 4, 5, 6)).shape == (2, 4, 5, 6)


@pytest.mark.parametrize("name, params", [
    ("mobilenet_v4_hybrid_medium", 11_070_136), ("mobilenet_v4_hybrid_large", 37_755_152)])
def test_hybrids_without_factors_in_their_bottlenecks_have_what_another_implementation_counts(name, params):
    """ChanLumerico/lucid, which has factors behind attention alone."""
    with torch.device("meta"):
        assert count_params(create_model(name, layer_scale=None)) == params


@pytest.mark.parametrize("name, kind", [("mobilenet_v4_hybrid_medium", nn.ReLU), ("mobilenet_v4_hybrid_large", nn.GELU)])
def test_activations_of_the_hybrids(name, kind):
    assert {type(module) for module in on_meta(name).modules() if isinstance(module, (nn.ReLU, nn.GELU))} == {kind}


# FasterNet and HRNet


@torch.no_grad()
def test_a_partial_convolution_leaves_three_quarters_as_they_are():
    layer, x = fasternet.PartialConv(8), torch.randn(2, 8, 5, 5)
    out = layer(x)
    assert torch.equal(out[:, 2:], x[:, 2:]) and layer.conv.conv.in_channels == layer.conv.conv.out_channels == 2
    torch.testing.assert_close(out[:, :2], nn.functional.conv2d(x[:, :2], layer.conv.conv.weight, padding=1))
    with pytest.raises(ValueError, match="divisor=3 must divide the 8 channels"):
        fasternet.PartialConv(8, 3)
    for name, kind in (("fasternet_t1", nn.GELU), ("fasternet_t2", nn.ReLU)):  # of 13 blocks and the head
        assert [type(m) for m in on_meta(name).modules() if isinstance(m, (nn.GELU, nn.ReLU))] == 14 * [kind]


@torch.no_grad()
def test_every_resolution_hears_of_every_other():
    """The exchange written out: 3x3 of stride 2 on the way down, 1x1 and repeated pixels on the way up, then ReLU."""
    torch.manual_seed(0)
    exchange = hrnet.Exchange((4, 8, 16), 1).eval()
    maps = [torch.randn(1, 4, 9, 12), torch.randn(1, 8, 5, 6), torch.randn(1, 16, 3, 3)]
    a, b, c = (branch(x) for branch, x in zip(exchange.branches, maps))

    def up(x, like):
        return nn.functional.interpolate(x, like.shape[2:])

    paths = exchange.paths
    expected = [a + up(paths[0][1](b), a) + up(paths[0][2](c), a), paths[1][0](a) + b + up(paths[1][2](c), b),
                paths[2][0](a) + paths[2][1](b) + c]
    for found, wanted in zip(exchange(maps), expected, strict=True):
        torch.testing.assert_close(found, wanted.relu())
    strides = [[m.stride[0] for m in path.modules() if isinstance(m, nn.Conv2d)] for path in paths[2]]
    assert strides == [[2, 2], [2], []]
    assert [[hasattr(m, "activation") for m in path.modules() if isinstance(m, hrnet.ConvNormAct)] for path in paths[2]] == [
        [True, False], [False], []]


def test_stages_of_hrnet():
    model = on_meta("hrnet_w32")
    assert [sum(isinstance(m, hrnet.Exchange) for m in stage) for stage in model.stages] == [0, 1, 4, 3]
    maps = model.stages(model.stem(torch.empty(1, 3, 224, 200, device="meta")))
    assert [tuple(x.shape[1:]) for x in maps] == [(32, 56, 50), (64, 28, 25), (128, 14, 13), (256, 7, 7)]


# ConvNeXt V2


@torch.no_grad()
def test_global_response_norm_by_hand():
    layer = convnext_v2.GlobalResponseNorm(2)
    x = torch.tensor([[[[3.0, 0.0]], [[4.0, 1.0]]]])  # (1, 2, 1, 2): maps (3, 4) and (0, 1), lengths 5 and 1, mean 3
    assert torch.equal(layer(x), x)
    layer.weight.copy_(torch.tensor([2.0, 10.0]))
    layer.bias.copy_(torch.tensor([0.5, 0.25]))
    expected = torch.tensor([[[[3 + 2 * 3 * 5 / 3 + 0.5, 0.25]], [[4 + 2 * 4 * 5 / 3 + 0.5, 1 + 10 / 3 + 0.25]]]])
    torch.testing.assert_close(layer(x), expected)


# LeNet-5


def test_lenet_layer_by_layer():
    """The paper's section II.B: trainable parameters of C1, S2, C3, S4, C5, F6; 60,000 together."""
    model = create_model("lenet5")
    parts = (model.stem[0], model.stem[2], model.stages[0][0], model.stages[0][2], model.stages[1][0], model.head[2])
    assert [count_params(part) for part in parts] == [156, 12, 1516, 32, 48120, 10164]
    assert sum(map(count_params, parts)) == 60_000 == count_params(model) - 850
    shapes = []
    for layer in (*model.stem, *model.stages[0], *model.stages[1]):
        layer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    model(torch.randn(1, 1, 32, 32))
    assert shapes[::2] == shapes[1::2] == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1)]
    with pytest.raises(ValueError, match="images of 28x28 are too small"):
        model(torch.randn(1, 1, 28, 28))
    with pytest.raises(ValueError, match="style='2012'"):
        create_model("lenet5", style="2012")
    with pytest.raises(ValueError, match="width_mult=2 needs style='modern'"):
        create_model("lenet5", width_mult=2)


def test_partial_connections_are_those_of_table_one():
    """Ten of 16 columns see three or four neighbours, round the corner; each map of S2 is seen by ten of C3."""
    conv = lenet.PartialConv2d(lenet.TABLE)
    for index, row in enumerate(lenet.TABLE):
        x = torch.randn(1, 6, 5, 5, requires_grad=True)
        conv(x)[0, index].sum().backward()
        assert tuple(x.grad[0].flatten(1).any(1).nonzero().flatten().tolist()) == tuple(sorted(row))
    assert [sum(channel in row for row in lenet.TABLE) for channel in range(6)] == [10] * 6
    assert [len(row) for row in lenet.TABLE] == 6 * [3] + 9 * [4] + [6]


def test_pieces_of_lenet():
    assert lenet.ScaledTanh()(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([1, -1], abs=1e-4)
    layer = lenet.Subsampling(1)
    with torch.no_grad():
        layer.weight.fill_(2.0), layer.bias.fill_(-1.0)
        assert layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).item() == 2 * 10 - 1
    torch.manual_seed(0)
    model = create_model("lenet5")
    for module, fan_in in ((model.stages[1][0], 400), (model.head[2], 120), (model.stages[0][0].convs[1], 100)):
        assert module.weight.abs().max().item() == pytest.approx(2.4 / fan_in, rel=0.01)
        assert module.weight.std().item() == pytest.approx(2.4 / fan_in / math.sqrt(3), rel=0.05)


# Inception-v3 and Xception


def test_inception_speaks_twice_in_training():
    torch.manual_seed(0)
    model, images = create_model("inception_v3", num_classes=5, dropout=0.0), torch.randn(2, 3, 299, 299)
    with torch.no_grad():
        out = model(images)
        assert isinstance(out, inception_v3.InceptionOutputs) and out.logits.shape == out.aux.shape == (2, 5)
        assert out.aux.std() < 0.1 * out.logits.std()  # it starts quiet
        assert model.eval()(images[:, :, :75, :75]).shape == (2, 5)
    with pytest.raises(ValueError, match="needs 299x299 in training"):
        model.train()(images[:, :, :200, :200])
    with pytest.raises(ValueError, match="images of 64x299 are too small: Inception-v3 needs at least 75x75"):
        model.eval()(images[:, :, :64])
    silent = create_model("inception_v3", num_classes=5, auxiliary=False).train()
    assert silent(images[:, :, :80, :80]).shape == (2, 5)


def test_xception_has_no_activation_between_depthwise_and_pointwise():
    assert [type(layer) for layer in xception.SeparableConv(4, 8)] == [nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]
    block = xception.Block(4, (8, 8), 2)
    x = torch.randn(2, 4, 9, 9)
    kept = x.clone()
    assert block(x).shape == (2, 8, 5, 5) and torch.equal(x, kept)
    assert isinstance(xception.Block(4, (4, 4)).shortcut, nn.Identity)


# ResNet-D


@torch.no_grad()
def test_blur_by_hand():
    """(1, 2, 1) / 4 in both directions around every second pixel, the image mirrored at its border."""
    image = torch.arange(16.0).view(1, 1, 4, 4)
    out = resnet_d.BlurPool()(image)
    assert out.shape == (1, 1, 2, 2)
    rows = (2 * image[0, 0, 0] + 2 * image[0, 0, 1]) / 4
    assert out[0, 0, 0, 0].item() == (2 * rows[0] + 2 * rows[1]) / 4
    assert out[0, 0, 1, 1].item() == 10.0  # a plane is not changed inside
    assert torch.equal(resnet_d.BlurPool()(image.expand(1, 3, 4, 4)), out.expand(1, 3, 2, 2))


def test_kernels_of_channel_attention_and_a_gate_by_hand():
    sizes = {64: 3, 256: 5, 512: 5, 1024: 5, 2048: 7}
    assert {c: resnet_d.EfficientChannelAttention(c).conv.kernel_size[0] for c in sizes} == sizes
    gate = resnet_d.EfficientChannelAttention(16)
    with torch.no_grad():
        gate.conv.weight.copy_(torch.tensor([[[1.0, 0.0, 0.0]]]))  # looks at the channel before
        x = torch.arange(1.0, 17).view(1, 16, 1, 1).expand(1, 16, 2, 2)
        assert gate(x)[0, 3, 0, 0].item() == pytest.approx(4 * torch.tensor(3.0).sigmoid().item())
        assert gate(x)[0, 0, 0, 0].item() == pytest.approx(0.5)


def test_blocks_of_resnet_d():
    torch.manual_seed(0)
    model = create_model("resnet_d_cifar").eval()
    x = torch.randn(2, 16, 8, 8).relu()
    with torch.no_grad():
        assert torch.equal(model.stages[0][0](x), x)  # starts as the identity
        shortcut = model.stages[1][0].shortcut
        assert [type(layer).__name__ for layer in shortcut] == ["AvgPool2d", "ConvNormAct"]
    with pytest.raises(ValueError, match="stem='mnist'; choose 'imagenet' or 'cifar'"):
        create_model("resnet50d", stem="mnist")
    with pytest.raises(ValueError, match="must name equally many stages"):
        create_model("resnet50d", depths=(1, 2))


# RDNet, BiT, NFNet, StarNet, CSPDarknet


def test_a_dense_layer_keeps_what_it_was_given():
    layer = rdnet.DenseLayer(16, 8, gated=True, layer_scale=0.5)
    x = torch.randn(2, 16, 6, 6)
    out = layer(x)
    assert out.shape == (2, 24, 6, 6) and torch.equal(out[:, :16], x)
    torch.testing.assert_close(out[:, 16:], 0.5 * layer.branch(x))
    gated = [sum(type(m).__name__ == "ChannelGate" for m in stage.modules()) for stage in on_meta("rdnet_tiny").stages]
    assert gated == [0, 0, 12, 3]


def test_standardized_weights():
    weight = torch.randn(4, 3, 5, 5) * 7 + 2
    done = standardized(weight, 0.0)
    torch.testing.assert_close(done.mean((1, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.var((1, 2, 3), correction=0), torch.ones(4))
    torch.testing.assert_close(standardized(100 * weight, 0.0), done)
    inputs = (weight - weight.mean((1, 2, 3), keepdim=True)).mean((2, 3))  # what differs between input channels stays
    torch.testing.assert_close(done.mean((2, 3)), inputs / weight.std((1, 2, 3), correction=0)[:, None])


def test_standardized_convolutions_count_as_layers():
    with torch.device("meta"):
        assert depth(create_model("bit_50x1").eval(), (3, 224, 224)) == 50
        assert depth(create_model("nfnet_cifar", depths=(1, 1, 1, 1)).eval(), (3, 32, 32)) == 4 + 4 * 4 + 2


def test_weights_of_bit_have_no_scale():
    torch.manual_seed(0)
    conv, x = bit.StandardizedConv2d(8, 8, 3), torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        before = conv(x)
        conv.weight.mul_(10)
        torch.testing.assert_close(conv(x), before, atol=1e-4, rtol=1e-4)
    block = bit.Bottleneck(128, 128).eval()
    with torch.no_grad():  # what stands between: x + F(relu(norm(x)))
        x = torch.randn(1, 128, 6, 6)
        torch.testing.assert_close(block(x) - block.branch(block.preactivation(x)), x)
    with pytest.raises(ValueError, match="width_mult=1.5 must be a positive integer"):
        create_model("bit_50x1", width_mult=1.5)


@torch.no_grad()
def test_nfnet_counts_the_size_of_its_signals():
    """Convolution and GELU keep a variance of one; beta is the deviation that blocks of variance alpha^2 add up to."""
    torch.manual_seed(0)
    conv = nfnet.ScaledConv2d(64, 256, 3)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear"), nn.init.zeros_(conv.bias)
    x = nn.functional.gelu(torch.randn(4, 64, 32, 32))
    x = (x - x.mean()) / x.std() / nfnet.GELU_GAIN  # zero mean, and as large as GELU leaves it
    assert conv(x)[..., 1:-1, 1:-1].var().item() == pytest.approx(1.0, rel=0.05)
    assert 1 / nn.functional.gelu(torch.randn(10**6)).std().item() == pytest.approx(nfnet.GELU_GAIN, rel=0.01)
    with torch.device("meta"):
        model = create_model("nfnet_cifar", depths=(2, 1, 3, 1))
    betas = [block.beta**2 for stage in model.stages for block in stage]
    assert betas == pytest.approx([1, 1.04, 1.08, 1.04, 1.04, 1.08, 1.12])
    with pytest.raises(ValueError, match="group_size=7 must divide half of each"):
        create_model("nfnet_cifar", group_size=7)


def test_nfnet_blocks_start_as_their_shortcuts():
    torch.manual_seed(0)
    block = create_model("nfnet_cifar").eval().stages[1][1]
    x = torch.randn(1, block.branch[0].in_channels, 8, 8)
    assert torch.equal(block(x), x)


@torch.no_grad()
def test_a_star_multiplies():
    block = starnet.StarBlock(4).eval()
    x = torch.randn(2, 4, 9, 9)
    for branch in (block.f1, block.f2):
        nn.init.zeros_(branch.conv.weight)
        nn.init.constant_(branch.conv.bias, 3.0)
    seen = []
    block.g.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    block(x)
    assert (seen[0] == 9).all()
    nn.init.constant_(block.f1.conv.bias, 8.0)
    block(x)
    assert (seen[1] == 18).all()  # relu6 on the first, nothing on the second


@torch.no_grad()
def test_half_of_the_channels_go_round_the_blocks():
    stage = cspdarknet.CrossStage(8, 2).eval()
    seen = []
    stage.blocks.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    stage.transition.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    x = torch.randn(1, 8, 5, 5)
    assert stage(x).shape == x.shape
    around, through = stage.expand(x).chunk(2, 1)
    (given, made), stacked = seen
    assert torch.equal(given, through) and torch.equal(stacked, torch.cat([around, made], 1))
    assert [len(stage[1].blocks) - 1 for stage in on_meta("cspdarknet53").stages] == [1, 2, 8, 8, 4]
    with pytest.raises(ValueError, match=r"depths=\(1, 0\) must give"):
        create_model("cspdarknet53", depths=(1, 0))


@pytest.mark.parametrize("name, momentum", [("efficientnet_lite0", 1 - 0.99), ("mnasnet_a1", 1 - 0.9997), ("mnasnet_b1", 1 - 0.9997)])
def test_running_statistics_move_as_the_authors_have_it(name, momentum):
    found = {module.momentum for module in on_meta(name).modules() if isinstance(module, nn.BatchNorm2d)}
    assert sorted(found) == [pytest.approx(momentum)]
