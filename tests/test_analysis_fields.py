"""Receptive fields: hand-computed and published values, and equality with the gradient footprint."""

import pytest
import torch
import torch.nn.functional as F
from analysis_graphs import Wrapped, make_positive, random_network, real_extents, rearranging_network
from torch import nn

import cnnlib
from cnnlib.analysis import AnalysisError, gradient_footprint, receptive_field
from libraries import torchvision
from zoo import is_quick, on_meta, smallest_input, smallest_of_each_kind


def some_units(units):
    """The corners, the middle, and the neighbour of a corner."""
    height, width = units
    rows, columns = (sorted({0, min(1, n - 1), n // 2, n - 1}) for n in (height, width))
    return sorted({(row, columns[i % len(columns)]) for i, row in enumerate(rows)} | {(0, width - 1), (height - 1, 0)})


def assert_fields_are_real(model, size, fields, names, least=0):
    wanted = {name: some_units(fields[name].units) for name in names}
    real = real_extents(make_positive(model), size, wanted, least)
    for (name, unit), spans in real.items():
        seen = fields[name].pixels(unit)
        seen = None if (0, -1) in seen else seen
        assert seen == spans, f"{name} {unit}: computed {seen}, gradient at {spans}"


@pytest.mark.parametrize("start", [
    pytest.param(start, marks=[] if start < 80 else [pytest.mark.slow]) for start in range(0, 400, 20)])
def test_random_graphs_see_what_their_gradients_say(start):
    checked = 0
    for seed in range(start, start + 20):
        torch.manual_seed(seed)
        model = random_network(seed)
        try:
            with torch.no_grad():
                model(torch.rand(1, 4, 26, 31))
        except (RuntimeError, ValueError):  # the maps became smaller than a kernel
            continue
        fields = receptive_field(model, (4, 26, 31))
        names = [name for name, _ in model.named_children()]
        checked += 1
        try:
            assert_fields_are_real(model, (4, 26, 31), fields, names)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{model}") from None
    assert checked >= 18


@pytest.mark.parametrize("start", (0, 20))
def test_size_and_stride_of_random_graphs_are_those_of_inner_units(start):
    checked = 0
    for seed in range(start, start + 20):
        torch.manual_seed(seed)
        model = random_network(seed, blocks=3)
        fields = receptive_field(model, (4, 120, 120))
        name = list(dict(model.named_children()))[-1]
        one = fields[name]
        unit = tuple(n // 2 for n in one.units)
        spans = one.pixels(unit)
        if any(first == 0 or last == 119 for first, last in spans) or not one.aligned:
            continue
        if all(isinstance(step, int) for step in one.stride):
            assert all(last - first + 1 <= size for (first, last), size in zip(spans, one.size))
            if not any(isinstance(m, nn.ConvTranspose2d) or type(m).__name__ == "Upsample" for m in model.modules()):
                assert tuple(last - first + 1 for first, last in spans) == one.size
                assert tuple(first for first, _ in spans) == tuple(
                    start + i * step for start, i, step in zip(one.start, unit, one.stride))
                checked += 1
    assert checked > 3


def stage_names(fields):
    return [name for name in fields if name.startswith("stages.") and name.count(".") == 1]


def assert_stage_ends_are_real(name, size):
    fields = receptive_field(on_meta(name).eval(), size)
    names = stage_names(fields)
    assert names
    model = cnnlib.create_model(name)
    wanted = {}
    for stage in names:
        height, width = fields[stage].units
        wanted[stage] = [(0, 0), (height // 2, width // 2), (height - 1, 0)]
    for (stage, unit), spans in real_extents(make_positive(model), size, wanted).items():
        assert fields[stage].pixels(unit) == spans, (stage, unit)


SMALL = [name for name in smallest_of_each_kind(cnnlib.list_models()) if is_quick(name, 1.5e6, 120)]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in SMALL else [pytest.mark.slow]) for name in cnnlib.list_models()])
def test_zoo_sees_what_its_gradients_say_at_stage_ends(name):
    assert_stage_ends_are_real(name, smallest_input(name))


@pytest.mark.parametrize("start", [
    pytest.param(start, marks=[] if start < 60 else [pytest.mark.slow]) for start in range(0, 1200, 20)])
def test_rearrangements_see_what_their_gradients_say(start):
    size, checked = (4, 16, 19), 0
    for seed in range(start, start + 20):
        torch.manual_seed(seed)
        model = rearranging_network(seed, size).double()
        try:
            fields = receptive_field(model, size)
        except AnalysisError as error:  # refused by name, and not counted
            assert "are the most that are followed" in str(error)
            continue
        names = [name for name, _ in model.named_children() if name in fields]  # units of the others see nothing
        x = torch.rand(1, *size, dtype=torch.float64)
        try:
            with torch.no_grad():
                for name, layer in model.named_children():
                    x = layer(x)
                    assert name not in fields or fields[name].units == tuple(x.shape[2:]), name
            assert_fields_are_real(model, size, fields, names, 1e-12)
            checked += len(names) >= 3
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{model}") from None
    assert checked >= 18


def shifted(x):
    y = torch.zeros_like(x)
    y[:, :, 1:] = x[:, :, :-1]
    return y


def halves_overwritten(x):
    y = x.clone()
    y[:, :2] = F.relu(y[:, 2:]).flip(2)
    return y


def some_rows_added(x):
    y = x.clone()
    y[:, :, 1:9:2].add_(x.roll(3, 2)[:, :, 1:9:2])
    return y


def seen_by_a_view(x):
    y = x.clone()
    part = y[:, 2:, 1::2]
    y.add_(F.pad(x, (0, 0, 1, 1))[:, :, :-2])
    return part


def convolved_by_unfolding(x):
    n, c, h, w = x.shape
    windows = F.unfold(x, (3, 2), dilation=2, padding=2, stride=(2, 1)).view(n, c, 6, -1)
    return windows.sum(2).view(n, c, (h + 4 - 5) // 2 + 1, w + 4 - 2)


@pytest.mark.parametrize("function", [
    shifted, halves_overwritten, some_rows_added, seen_by_a_view, convolved_by_unfolding,
    lambda x: x.unfold(2, 4, 2).sum(-1), lambda x: x.unfold(3, 3, 1).unfold(2, 3, 2).mean((4, 5)),
    *(lambda x, options=options: F.interpolate(x, **options) for options in (
        {"scale_factor": 2, "mode": "bicubic"}, {"size": (13, 23), "mode": "bicubic"}, {"scale_factor": 1.5},
        {"scale_factor": 1.3, "mode": "bilinear"}, {"size": (9, 40), "mode": "bilinear", "align_corners": True},
        {"scale_factor": 2, "mode": "bicubic", "align_corners": True}))])
@pytest.mark.parametrize("before", [
    lambda: nn.Conv2d(4, 4, 3, 1, 1), lambda: nn.Conv2d(4, 4, 5, 2), lambda: nn.Upsample(scale_factor=2)])
def test_windows_writes_in_place_and_interpolation_see_what_their_gradients_say(before, function):
    model = nn.Sequential(before(), Wrapped(function), nn.Conv2d(4 if function is not seen_by_a_view else 2, 4, (2, 3)))
    assert_fields_are_real(model, (4, 24, 29), receptive_field(model, (4, 24, 29)), ["0", "1", "2"])


# Published and hand-computed values


def caffe_resnet(name):
    """Bottlenecks with the stride in the first 1x1 convolution, as in the paper's own release."""
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
    return model.eval()


@pytest.mark.parametrize("name, size", [("resnet50", 483), ("resnet101", 1027), ("resnet152", 1507)])
def test_published_fields_of_resnets(name, size):
    assert receptive_field(caffe_resnet(name), (3, 224, 224))["layer4"].size == (size, size)


def test_published_fields_of_vgg_and_alexnet():
    with torch.device("meta"):
        vgg, alexnet = torchvision.models.vgg16(), torchvision.models.alexnet()
    assert receptive_field(vgg, (3, 224, 224))["features"].size == (212, 212)
    assert receptive_field(alexnet, (3, 224, 224))["features"].size == (195, 195)


def test_published_field_of_mobilenet():
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    layers = [nn.Conv2d(3, 8, 3, 2, 1)]
    for stride in strides:
        layers += [nn.Conv2d(8, 8, 3, stride, 1, groups=8), nn.Conv2d(8, 8, 1)]
    assert receptive_field(nn.Sequential(*layers), (3, 224, 224)).output.size == (315, 315)


def test_by_hand():
    first = nn.Conv2d(3, 4, (3, 5), (2, 1), (1, 0))
    model = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, dilation=2))
    fields = receptive_field(model, (3, 64, 48))
    first, pooled, last = fields["0"], fields["2"], fields["3"]
    assert (first.size, first.stride, first.start, first.units) == ((3, 5), (2, 1), (-1, 0), (32, 44))
    assert (pooled.size, pooled.stride, pooled.start) == ((5, 6), (4, 2), (-1, 0))
    assert (last.size, last.stride, last.start) == ((5 + 4 * 4, 6 + 4 * 2), (4, 2), (-1, 0))
    assert last.pixels((0, 0)) == ((0, 19), (0, 13))
    assert first.units_seeing((0, 0)) == ((0,), (0,))
    assert first.units_seeing((3, 10)) == ((1, 2), (6, 7, 8, 9, 10))


@pytest.mark.parametrize("join", [lambda a, b: a + b, lambda a, b: torch.cat([a, b], 1), lambda a, b: torch.stack([a, b]).amax(0)])
def test_of_two_branches_the_wider_counts_in_either_order(join):
    class Block(nn.Module):
        def __init__(self, skip_first):
            super().__init__()
            self.conv, self.skip_first = nn.Conv2d(2, 2, 5, padding=2), skip_first

        def forward(self, x):
            return join(x, self.conv(x)) if self.skip_first else join(self.conv(x), x)

    for skip_first in (True, False):
        assert receptive_field(Block(skip_first), (2, 16, 16)).output.size == (5, 5)


def test_branches_that_are_not_aligned_are_reported_and_their_union_counts():
    class Crooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(1, 1, 3, padding=0), nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.left(x) + self.right(x)[:, :, 4:-4, 4:-4].contiguous()[:, :, :, :]

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.join = Crooked()
            self.after = nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.after(self.join(x))

    class Join(Crooked):
        def forward(self, x):
            return self.left(x) + self.right(x)[:, :, 2:, 2:]

    model = Shifted()
    model.join = Join()
    fields = receptive_field(model, (1, 20, 20))
    assert fields["join.left"].aligned
    assert not fields["join"].aligned and fields["join"].unaligned == ("join",)
    assert fields["join"].size == (3, 3) and fields["after"].size == (5, 5)
    assert fields["after"].unaligned == ("join",)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels, pool):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.pool = pool

    def forward(self, x):
        return x * torch.sigmoid(self.fc(self.pool(x)))


@pytest.mark.parametrize("pool", [
    nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3), keepdim=True), lambda x: F.avg_pool2d(x, x.shape[2:]),
    lambda x: x.amax((-1, -2), True)])
def test_gates_and_global_pooling_are_flagged_and_the_path_without_them_counts(pool):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), Gate(4, pool), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1))
    fields = receptive_field(model, (3, 32, 32))
    assert not fields["0"].global_context
    assert fields["1"].global_context and fields["1"].size == (3, 3) and fields["1"].aligned
    assert fields["2"].global_context and (fields["2"].size, fields["2"].stride) == ((5, 5), (2, 2))
    assert fields["3"].global_context and fields["3"].units == (1, 1)
    assert fields["2"].pixels((0, 0)) == ((0, 2), (0, 2))


def test_attention_and_group_norm_see_everything_but_layer_norm_over_channels_does_not():
    class Channels(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x):
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, x.shape[2:])

    conv = nn.Conv2d(4, 4, 3, padding=1)
    fields = receptive_field(nn.Sequential(conv, Channels(), nn.GroupNorm(2, 4), conv), (4, 8, 8))
    assert (fields["1"].size, fields["1"].global_context) == ((3, 3), False)
    assert (fields["2"].size, fields["2"].global_context) == ((3, 3), True)
    fields = receptive_field(nn.Sequential(conv, Tokens()), (4, 8, 8))
    assert fields["1"].global_context


def test_one_and_three_dimensions():
    fields = receptive_field(nn.Sequential(nn.Conv1d(2, 2, 5, 2), nn.MaxPool1d(2), nn.Conv1d(2, 2, 3)), (2, 64))
    assert (fields["2"].size, fields["2"].stride) == ((15,), (4,))
    volumes = nn.Sequential(nn.Conv3d(1, 2, (1, 3, 3)), nn.AvgPool3d(2), nn.Conv3d(2, 2, 3))
    fields = receptive_field(volumes, (1, 16, 16, 16))
    assert fields["2"].size == (6, 8, 8)


def test_what_cannot_be_followed_is_named():
    class Sorted(nn.Module):
        def forward(self, x):
            return x.sort(dim=2)[0]

    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(AnalysisError, match=r"'sort'.*module '1' \(Sorted\)"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), Sorted()), (1, 8, 8))
    with pytest.raises(AnalysisError, match=r"module '1' \(Branching\).*values of a tensor"):
        receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), Branching()), (1, 8, 8))
    with pytest.raises(ValueError, match="no spatial axes"):
        receptive_field(nn.Linear(4, 4), (4,))


# The effective field


def test_footprint_of_a_box_filter_is_known():
    model = nn.Sequential(*[nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(4)])
    for conv in model:
        nn.init.constant_(conv.weight, 1.0)
    print_of = gradient_footprint(model, torch.rand(2, 1, 33, 33))
    assert print_of.unit == (16, 16) and print_of.extent == ((12, 20), (12, 20))
    assert print_of.centre == pytest.approx((16, 16))
    assert print_of.spread == pytest.approx(((4 * 2 / 3) ** 0.5,) * 2)  # variances add: 2/3 for each box of three
    assert float(print_of.map.sum()) == pytest.approx(1)
    assert print_of.share_within((9, 9)) == pytest.approx(1)


def test_footprint_of_random_weights_grows_more_slowly_than_the_field():
    torch.manual_seed(0)
    spreads = []
    for depth in (4, 16):
        model = nn.Sequential(*[nn.Conv2d(4 if i else 1, 4, 3, padding=1, bias=False) for i in range(depth)])
        spreads.append(gradient_footprint(model, torch.rand(1, 1, 41, 41), initializations=8).spread[0])
    assert 1.5 < spreads[1] / spreads[0] < 2.8  # four times as deep, about twice as wide


def test_footprint_leaves_model_and_random_state_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    gradient_footprint(model, torch.rand(2, 1, 8, 8), "1", initializations=2, unit=(0, 0))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) is False or model.training  # torch.rand above draws from it
    with pytest.raises(ValueError, match="no module 'head'"):
        gradient_footprint(model, torch.rand(1, 1, 8, 8), "head")
    with pytest.raises(ValueError, match="unit must lie within"):
        gradient_footprint(model, torch.rand(1, 1, 8, 8), unit=(6, 0))
