"""Feature pyramids of every kind of network, decoders on them, and dilation in the place of strides."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib import create_model, list_models
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.registry import find_variant
from cnnlib.segmentation import FCN, FPN, Encoder, FPNSegmenter, UNet, UpBlock, dilated, features, intersection_over_union
from libraries import torchvision
from zoo import randomize, smallest_of_each_kind, with_random_tensors

NETWORKS = ("resnet18", "vgg11_bn", "densenet_cifar", "googlenet", "mobilenet_v2", "shufflenet_v2_x0_5",
            "efficientnet_lite0", "convnext_cifar", "rdnet_cifar", "preresnet20", "starnet_cifar", "squeezenet1_1",
            "mobilenet_v4_conv_small", "repvgg_a0")


def network(name: str, **overrides) -> nn.Module:
    torch.manual_seed(0)
    return with_random_tensors(name, **overrides).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_a_pyramid_is_what_the_network_computes(name):
    """Its last map gives the network's logits, and no later layer has written over a map."""
    model, images = network(name), torch.randn(2, 3, 64, 64)
    maps = features(model, images)
    assert list(maps) == sorted(maps)
    for stride, found in maps.items():
        assert -(-64 // stride) - 1 <= found.shape[2] <= 64 // stride
    assert torch.equal(model.head(maps[max(maps)]), model(images))
    x, kept = images, {}
    for step in Encoder(model).steps():
        x = step(x.clone())
        kept[x.shape[2]] = x.clone()
    assert all(torch.equal(found, kept[found.shape[2]]) for found in maps.values())


@torch.no_grad()
def test_the_pyramid_of_hrnet_is_what_its_last_exchange_gives():
    model, images = network("hrnet_cifar"), torch.randn(2, 3, 64, 64)
    maps, last = features(model, images), model.stages(model.stem(images))
    assert list(maps) == [2, 4, 8, 16] and [found.shape[1] for found in maps.values()] == [16, 32, 64, 128]
    assert all(torch.equal(found, expected) for found, expected in zip(maps.values(), last, strict=True))
    segmenter = FPNSegmenter(model, 5, strides=(2, 4, 8, 16)).eval()
    assert segmenter(images).shape == (2, 5, 64, 64)


@torch.no_grad()
def test_a_map_has_no_border_that_only_a_pooling_wants():
    with torch.device("meta"):
        model = create_model("bit_50x1", depths=(1, 1), width_mult=1).eval()
        maps = features(model, torch.empty(1, 3, 64, 48))
    assert {stride: tuple(found.shape[2:]) for stride, found in maps.items()} == {2: (32, 24), 4: (16, 12), 8: (8, 6)}


@pytest.mark.parametrize("name, strides", [
    ("resnet50", [2, 4, 8, 16, 32]),
    ("convnext_tiny", [4, 8, 16, 32]),
    ("alexnet", [8, 16, 32]),
    ("googlenet", [2, 4, 8, 16, 32]),
    ("nasnet_mobile", [8, 16, 32]),
    ("inception_v3", [2, 4, 8, 16, 32]),
    ("xception", [2, 4, 8, 16, 32]),
    ("resnet20", [1, 2, 4]),
])
def test_strides_of_networks(name, strides):
    with torch.device("meta"):
        model = create_model(name)
    assert list(Encoder(model).channels) == strides


@pytest.mark.parametrize("height, width", [(64, 256), (256, 64), (96, 480)])
def test_strides_of_oblong_images(height, width):
    with torch.device("meta"):
        maps = features(create_model("resnet18").eval(), torch.empty(1, 3, height, width))
    assert {stride: found.shape[2:] for stride, found in maps.items()} == {
        stride: (height // stride, width // stride) for stride in (2, 4, 8, 16, 32)}


@pytest.mark.parametrize("size", [(33, 33), (40, 65), (37, 250), (5, 9)])
def test_strides_are_those_of_the_network_whatever_is_left_of_the_image(size):
    """Sizes round up from stage to stage: of 33 pixels, the map of stride 16 has 3, which is nearer to a stride of 8."""
    channels = {2: 64, 4: 64, 8: 128, 16: 256, 32: 512}
    with torch.device("meta"):
        model = create_model("resnet18").eval()
        maps = features(model, torch.empty(1, 3, *size))
        out = UNet(model, 4).eval()(torch.empty(1, 3, *size))
    assert {stride: tuple(found.shape[1:]) for stride, found in maps.items()} == {
        stride: (width, *(-(-side // stride) for side in size)) for stride, width in channels.items()}
    assert out.shape == (1, 4, *size)


@pytest.mark.slow
@pytest.mark.parametrize("name", smallest_of_each_kind(list_models()))
def test_maps_of_every_network_are_as_large_as_their_strides_say(name):
    """Odd and oblong images, as large as a border of unpadded convolutions leaves them; and decoders give each pixel its scores."""
    channels, size = find_variant(name).input_size[0], (257, 241)
    with torch.device("meta"), torch.no_grad():
        model = create_model(name).eval()
        images = torch.empty(1, channels, *size)
        maps = features(model, images)
        strides = list(maps)
        assert strides == sorted(strides) and all(stride & (stride - 1) == 0 for stride in strides)
        for stride, found in maps.items():
            for side, length in zip(size, found.shape[2:]):
                assert side / stride - 9 <= length <= -(-side // stride), (stride, tuple(found.shape))
        assert Encoder(model).channels == {stride: found.shape[1] for stride, found in maps.items()}
        decoders = UNet(model, 3, strides=strides, widths=[4] * (len(strides) - 1)), FPNSegmenter(model, 3, strides=strides, width=4)
        for decoder in decoders:
            assert decoder.eval()(images).shape == (1, 3, *size)


def test_auxiliary_heads_are_left_out_in_training():
    for name in ("googlenet", "inception_v3"):
        with torch.device("meta"):
            model = create_model(name).train()
            maps = features(model, torch.empty(2, 3, 299, 299))
        assert all(isinstance(found, torch.Tensor) for found in maps.values()) and 32 in maps


def test_the_channels_are_found_without_a_trace():
    model = create_model("resnet20").train()
    before = copy.deepcopy(model.state_dict())
    assert Encoder(model).channels == {1: 16, 2: 32, 4: 64}
    assert model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.stem.conv.weight.is_meta


def test_what_is_no_network_of_ours_is_refused():
    with pytest.raises(ValueError, match="Linear has no stem and stages"):
        features(nn.Linear(2, 2), torch.zeros(1, 2))
    for shape in ((1, 3, 8, 8), (1, 4, 64, 64), (3, 64)):
        with pytest.raises(ValueError, match=rf"VGG cannot take images of shape \({', '.join(map(str, shape))}\): "):
            features(create_model("vgg11_cifar"), torch.zeros(shape))


# FPN


@torch.no_grad()
def test_an_fpn_equals_torchvisions():
    channels, sizes = (24, 40, 112), ((17, 23), (9, 12), (5, 6))
    theirs = torchvision.ops.FeaturePyramidNetwork(channels, 32)
    ours = FPN(channels, 32)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    maps = [torch.randn(2, count, *size) for count, size in zip(channels, sizes)]
    expected = theirs({str(index): found for index, found in enumerate(maps)})
    for one, other in zip(ours(maps), expected.values(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_start_of_an_fpn_has_the_statistics_of_torchvisions():
    torch.manual_seed(0)
    ours, theirs = FPN((256, 512), 256), torchvision.ops.FeaturePyramidNetwork((256, 512), 256)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.std(correction=0).item() == pytest.approx(other.std(correction=0).item(), rel=0.02)


def test_a_coarse_map_speaks_to_all_finer_ones_and_not_the_other_way():
    fpn = FPN((4, 4, 4), 8)
    maps = [torch.randn(1, 4, size, size, requires_grad=True) for size in (8, 4, 2)]
    for index, out in enumerate(fpn(maps)):
        gradients = torch.autograd.grad(out.sum(), maps, retain_graph=True, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [i >= index for i in range(3)]


# decoders


@pytest.mark.parametrize("build", [
    lambda: UNet(create_model("resnet18"), 5),
    lambda: UNet(create_model("mobilenet_v2"), 5, skips=False),
    lambda: FPNSegmenter(create_model("convnext_cifar"), 5, strides=(2, 4, 8, 16)),
    lambda: FCN(dilated(create_model("resnet18"), 8), 5),
], ids=["unet", "unet without skips", "fpn", "fcn"])
def test_decoders_label_every_pixel_and_train(build):
    torch.manual_seed(0)
    model = build().train()
    images = torch.randn(2, 3, 70, 94)
    out = model(images)
    assert out.shape == (2, 5, 70, 94)
    F.cross_entropy(out, torch.randint(5, (2, 70, 94))).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert not silent


def test_a_step_up_by_hand():
    """[up, fine] in this order, by repeated pixels, and without the skip the fine map lends its size alone."""
    block = UpBlock(1, 1, 2).eval()
    coarse, fine = torch.tensor([[[[1.0, 2.0]]]]), torch.zeros(1, 1, 2, 4)
    seen = []
    block.convs = nn.Sequential(nn.Identity())
    block.convs.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    block(coarse, fine)
    assert torch.equal(seen[0][0], torch.tensor([[[1.0, 1, 2, 2], [1, 1, 2, 2]], [[0.0, 0, 0, 0], [0, 0, 0, 0]]]))
    alone = UpBlock(3, 7, 2, skip=False)
    assert alone.convs[0].conv.in_channels == 3
    assert alone(torch.randn(1, 3, 2, 2), torch.randn(1, 7, 5, 5)).shape == (1, 2, 5, 5)


@torch.no_grad()
@pytest.mark.parametrize("skips", [True, False])
def test_skips_reach_the_output(skips):
    torch.manual_seed(0)
    model, images = UNet(create_model("resnet18"), 2, skips=skips).eval(), torch.randn(1, 3, 64, 64)
    before = model(images)
    model.decoder[-1].register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[1] + 1))
    assert torch.equal(model(images), before) != skips


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no map of stride 2; this network has 4, 8, 16, 32"):
        UNet(create_model("convnext_v2_atto"), 2)
    with pytest.raises(ValueError, match=r"widths=\(32,\) must name one width for each of strides=\(2, 4, 8\)"):
        UNet(create_model("resnet18"), 2, strides=(2, 4, 8), widths=(32,))


def test_cost_and_field_of_a_decoder():
    """What the skips cost: 9 fine width for each pixel. The field grows on the way up."""
    whole = cost_table(UNet(create_model("resnet18"), 2).eval(), (3, 64, 64)).total.macs
    plain = cost_table(UNet(create_model("resnet18"), 2, skips=False).eval(), (3, 64, 64)).total.macs
    skipped = sum(9 * fine * width * (64 // stride) ** 2
                  for stride, fine, width in ((2, 64, 32), (4, 64, 64), (8, 128, 128), (16, 256, 256)))
    assert whole - plain == skipped
    encoder_field = receptive_field(create_model("resnet18").eval(), (3, 64, 64))["stages"].size
    field = receptive_field(UNet(create_model("resnet18"), 2).eval(), (3, 64, 64))["head"].size
    assert field[0] > encoder_field[0] and field[1] > encoder_field[1]


# dilation


@torch.no_grad()
@pytest.mark.parametrize("name, stride", [
    ("resnet18", 8), ("resnet18", 16), ("resnet18", 4), ("resnet50_v1", 8), ("vgg11_bn", 4), ("mobilenet_v2", 8),
    ("shufflenet_v2_x0_5", 8), ("mobilenet_v4_conv_small", 16), ("repvgg_a0", 8), ("regnet_x_400mf", 8),
    ("xception", 16),
])
def test_a_dilated_network_computes_the_same_and_more_between(name, stride):
    model, images = network(name), torch.randn(1, 3, 128, 128)
    original = features(model, images)
    wide = dilated(model, stride)
    states = zip(model.state_dict().values(), wide.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in states)
    finer = features(wide, images)
    assert max(finer) == stride
    last, every = original[max(original)], max(original) // stride
    assert finer[stride].shape[2] == 128 // stride or name in ("xception", "vgg11_bn")
    common = finer[stride][:, :, ::every, ::every]
    assert (common - last).abs().max() <= 1e-5 * last.abs().max()
    assert not torch.equal(finer[stride][:, :, 1:2], finer[stride][:, :, :1])
    assert features(model, images).keys() == original.keys()  # the original is as it was


@torch.no_grad()
def test_a_dilated_resnet_with_a_head_is_torchvisions_fcn():
    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=7)
    theirs = randomize(theirs).eval()
    ours = FCN(dilated(create_model("resnet50"), 8), 7).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 72, 104)
    expected = theirs(images)["out"]
    assert (ours(images) - expected).abs().max() <= 1e-5 * expected.abs().max()
    sizes = {name: (m.stride, m.padding, m.dilation) for name, m in theirs.named_modules() if isinstance(m, nn.Conv2d)}
    found = [(m.stride, m.padding, m.dilation) for m in ours.modules() if isinstance(m, nn.Conv2d)]
    assert found == list(sizes.values())
    assert [m.p for m in ours.modules() if isinstance(m, nn.Dropout)] == [m.p for m in theirs.modules() if isinstance(m, nn.Dropout)]


def test_nothing_changes_where_the_network_is_fine_enough():
    model = create_model("resnet18")
    same = dilated(model, 32)
    assert all((a.stride, a.padding, a.dilation) == (b.stride, b.padding, b.dilation)
               for a, b in zip(model.modules(), same.modules()) if isinstance(a, nn.Conv2d))


def test_what_cannot_be_dilated_is_named():
    with pytest.raises(ValueError, match=r"stages.2.7.conv|stages.\S+ \(AvgPool2d\) cannot be dilated"):
        dilated(create_model("resnet18d"), 8)
    with pytest.raises(ValueError, match=r"\(SamePadConv2d\) cannot be dilated"):
        dilated(create_model("efficientnet_lite0"), 8)
    with pytest.raises(ValueError, match="stride=12 is not a power of two"):
        dilated(create_model("resnet18"), 12)


def test_intersection_over_union_by_hand():
    masks = torch.tensor([[0, 0, 1, 1, 2]])
    answers = torch.tensor([[0, 1, 1, 1, 0]])
    values = intersection_over_union(answers, masks, 4)
    assert values[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 0.0]) and values[3].isnan()
    many = torch.tensor([20, 20, 13, 13], dtype=torch.uint8)  # 21 * 20 + 20 is more than a byte holds
    assert intersection_over_union(many, many.flip(0), 21)[[13, 20]].tolist() == [0, 0]
    assert intersection_over_union(many, many, 21)[[13, 20]].tolist() == [1, 1]
    with pytest.raises(ValueError, match="answers are torch.float32"):
        intersection_over_union(masks.float(), masks, 3)
    with pytest.raises(ValueError, match="answers go from 0 to 2, but there are 2 classes"):
        intersection_over_union(masks, masks, 2)
    with pytest.raises(ValueError, match="do not fit"):
        intersection_over_union(masks[:, :3], masks, 4)
