"""Cases worked out by hand: fields, memory and costs where a small mistake would hide."""

from fractions import Fraction

import pytest
import torch
from analysis_graphs import Wrapped
from torch import nn
from torch.nn import functional as F

from cnnlib import tables
from cnnlib.analysis import AnalysisError, Device, Input, cost_table, gradient_footprint, receptive_field, training_memory
from cnnlib.analysis.depth import depth


def test_a_pixel_shuffle_has_a_unit_for_every_pixel():
    field = receptive_field(nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), (3, 8, 9))["1"]
    assert (field.units, field.size, field.stride, field.start) == ((16, 18), (3, 3), (Fraction(1, 2),) * 2, (-1, -1))
    assert field.pixels((1, 1)) == ((0, 1), (0, 1)) and field.pixels((2, 3)) == ((0, 2), (0, 2)) and field.pixels((15, 17)) == ((6, 7), (7, 8))
    assert receptive_field(nn.Sequential(nn.Conv2d(3, 12, 3), nn.PixelUnshuffle(2)), (3, 10, 12))["1"].units == (4, 5)


@pytest.mark.parametrize("function, units, stride", [
    (lambda x: x.repeat(1, 1, 2, 3), (12, 21), (1, 1)), (lambda x: x.repeat_interleave(3, 2), (18, 7), (Fraction(1, 3), 1)),
    (lambda x: x[:, :, :, None].expand(-1, -1, -1, 2, -1).flatten(2, 3), (12, 7), (Fraction(1, 2), 1)),
    (lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), (12, 14), (Fraction(1, 2),) * 2),
    (lambda x: x[:, :, [5, 0, 3]], (3, 7), (-1, 1)), (lambda x: x[:, :, torch.tensor(2)], None, None),
    (lambda x: x.flatten(1), (6, 7), (1, 1)), (lambda x: x.flatten(2).transpose(1, 2), (6, 7), (1, 1))])
def test_units_that_move_no_coordinate_are_units(function, units, stride):
    field = receptive_field(nn.Sequential(nn.Conv2d(2, 2, 1), Wrapped(function)), (2, 6, 7))["1"]
    if units is not None:
        assert (field.units, field.stride, field.size) == (units, stride, (1, 1))
    else:
        assert field.pixels((0, 4)) == ((2, 2), (4, 4))


@pytest.mark.parametrize("norm", [
    nn.InstanceNorm2d(4), nn.InstanceNorm2d(4, affine=True), Wrapped(F.instance_norm), nn.GroupNorm(2, 4), nn.GroupNorm(4, 4),
    nn.LayerNorm([4, 12, 12]), Wrapped(lambda x: F.layer_norm(x, x.shape[1:])), Wrapped(lambda x: F.normalize(x, dim=(2, 3))),
    Wrapped(lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)), nn.RMSNorm([4, 12, 12]),
    Wrapped(lambda x: torch.var_mean(x, (2, 3), keepdim=True)[0] + x)])
def test_statistics_of_a_sample_see_the_whole_image(norm):
    field = receptive_field(nn.Sequential(nn.Conv2d(3, 4, 5), norm), (3, 16, 16))["1"]
    assert field.global_context and field.size == (5, 5) and field.aligned


@pytest.mark.parametrize("norm", [
    nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval(), nn.InstanceNorm2d(4, track_running_stats=True).eval(), nn.LocalResponseNorm(2),
    Wrapped(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2)), Wrapped(lambda x: F.normalize(x, dim=1))])
def test_statistics_that_are_given_or_of_channels_alone_do_not(norm):
    field = receptive_field(nn.Sequential(nn.Conv2d(3, 4, 5), norm), (3, 16, 16))["1"]
    assert not field.global_context and field.size == (5, 5)


def test_flags_and_sizes_belong_to_an_axis():
    rows = nn.Sequential(nn.Conv2d(1, 1, (3, 1)), Wrapped(lambda x: x.mean(3, keepdim=True).expand_as(x)))
    field = receptive_field(rows, (1, 8, 7))["1"]
    assert (field.global_axes, field.global_context, field.size, field.units) == ((False, True), True, (3, 7), (6, 7))
    assert field.pixels((2, 5)) == ((2, 4), (0, 6)) and field.stride == (1, 0)
    assert "global context (axis 1)" in str(receptive_field(rows, (1, 8, 7)))


def test_a_token_that_sees_no_pixel_is_left_out():
    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.conv, self.head = nn.Parameter(torch.zeros(1, 1, 4)), nn.Conv2d(3, 4, 2, 2), nn.Identity()

        def forward(self, x):
            tokens = torch.cat([self.token.expand(len(x), -1, -1), self.conv(x).flatten(2).transpose(1, 2)], 1)
            return self.head(tokens[:, 0]), tokens

    fields = receptive_field(Token(), (3, 8, 8))
    assert list(fields) == ["conv"] and "conv" in str(fields) and fields.output is None


def test_unpooling_and_folding():
    fields = receptive_field(nn.Sequential(nn.Conv2d(1, 1, 3), Wrapped(
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2))), (1, 10, 10))
    assert fields["1"].size == (4, 4) and fields["1"].pixels((3, 2)) == ((2, 5), (2, 5))
    fields = receptive_field(Wrapped(lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 7), 3, padding=1)), (2, 6, 7))
    assert fields.output is not None and fields.output.pixels((2, 3)) == ((2, 2), (3, 3))
    with pytest.raises(ValueError, match="indices are not those of a pooling"):
        receptive_field(Wrapped(lambda x: F.max_unpool2d(x, torch.zeros(1, 1, 4, 4, dtype=torch.int64, device=x.device), 2)), (1, 4, 4))


def test_indices_of_a_meta_model_are_refused_by_name():
    class Picked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("order", torch.tensor([2, 0, 1]))

        def forward(self, x):
            return x[:, :, self.order]

    assert receptive_field(nn.Sequential(Picked()), (1, 4, 4))["0"].units == (3, 4)
    with torch.device("meta"):
        model = nn.Sequential(Picked())
    with pytest.raises(ValueError, match="'index'.*values of its indices are not known"):
        receptive_field(model, (1, 4, 4))


def written(*write):
    """A copy of the input, of which a part is written by the functions in turn, given the copy and the input."""
    def function(x):
        y = x.clone()
        for one in write:
            one(y, x)
        return y

    return Wrapped(function)


@pytest.mark.parametrize("write, pixels", [
    (lambda y, x: y.transpose(2, 3)[:, :, 1:].add_(x.transpose(2, 3)[:, :, :-1]), [((3, 3), (1, 2)), ((5, 5), (5, 6))]),
    (lambda y, x: y.permute(0, 3, 2, 1)[:, 2:].copy_(x.permute(0, 3, 2, 1)[:, :-2]), [((3, 3), (0, 0)), ((5, 5), (4, 4))]),
    (lambda y, x: y.transpose(2, 3)[:, :, ::3].mul_(x.flip(3).transpose(2, 3)[:, :, ::3]), [((3, 3), (2, 2)), ((5, 5), (1, 6))]),
    (lambda y, x: y[..., 2].copy_(x[..., 7]), [((3, 3), (7, 7)), ((5, 5), (6, 6))]),
    (lambda y, x: y.select(2, 3).copy_(x[:, :, 0]), [((0, 0), (2, 2)), ((5, 5), (6, 6))]),
    (lambda y, x: y[0, 0, 3].zero_(), [((3, 3), (2, 2)), ((5, 5), (6, 6))]),
    (lambda y, x: y.view(-1).add_(x.flip(2).reshape(-1)), [((3, 3), (2, 2)), ((1, 5), (6, 6))]),
    (lambda y, x: y[:, :1].transpose(2, 3).zero_(), [((3, 3), (2, 2)), ((5, 5), (6, 6))])])
def test_what_a_view_writes_is_found_along_the_axes_of_its_memory(write, pixels):
    """Of units (3, 2) and (5, 6); a map of 7 rows, so that a row counted as a column shows."""
    field = receptive_field(written(write), (2, 7, 8)).output
    assert [field.pixels((3, 2)), field.pixels((5, 6))] == pixels


def test_a_write_by_a_view_that_mixes_dimensions_is_refused_by_name():
    x = torch.rand(1, 2, 7, 8)
    mixed = written(lambda y, x: y.view(1, 2, -1)[:, :, 4:12].add_(x[:, :, 0]))
    with pytest.raises(AnalysisError, match="'written_through'.*mixes its dimensions"):
        receptive_field(mixed, (2, 7, 8))
    halves = written(lambda y, x: y.view(2, 7, 8)[0].add_(1), lambda y, x: y.view(2, 7, 8)[1].copy_(x[0, 1].flip(0)))
    assert receptive_field(halves, (2, 7, 8)).output.pixels((1, 6)) == ((1, 5), (6, 6)) and x.shape == (1, 2, 7, 8)


def test_steps_stacked_to_a_sequence_are_units():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 3, batch_first=True)

        def forward(self, x):
            return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)

    field = receptive_field(Recurrent(), (2, 5)).output
    assert field.units == (5,) and [field.pixels((i,)) for i in range(5)] == [((0, i),) for i in range(5)]


def test_an_input_without_a_batch():
    conv = nn.Conv2d(3, 4, 3)
    table = cost_table(conv, Input((3, 8, 8), batched=False))
    assert (table.batch_size, table[0].input_shape, table[0].output_shape) == (None, (3, 8, 8), (4, 6, 6))
    assert table.total.macs == 36 * 108 and "no batch" in table.note
    assert "no batch" in training_memory(conv, {"input": Input((3, 8, 8), batched=False)}).note
    with pytest.raises(ValueError, match="without a batch"):
        receptive_field(conv, [Input((3, 8, 8), batched=False)])


# What is remembered, between calls that look alike


def test_calls_that_differ_in_a_value_alone():
    for keep in (True, False, True):
        table = cost_table(Wrapped(lambda x: x.sum(1, keepdim=keep)), (3, 4))
        assert table[0].output_shape == ((1, 4) if keep else (4,))
    for columns in ([0, 2], [1, 2]):
        field = receptive_field(Wrapped(lambda x: x[:, :, :, columns]), (1, 4, 4)).output
        assert field.pixels((0, 0)) == ((0, 0), (columns[0],) * 2)
    for power, size in ((2, 8), (2.0, 4), (2, 8)):  # of integers an integer, or a floating-point number
        assert cost_table(Wrapped(lambda x: x.pow(power)), Input((3,), torch.int64)).total.activation_bytes == 3 * size


def test_a_step_inside_of_a_function_has_its_memory():
    model = Wrapped(lambda x: F.cosine_similarity(x, x.flip(1), dim=1))
    peaks = {cost_table(model, (64, 8, 8)).peak_bytes for _ in range(3)}
    assert len(peaks) == 1 and peaks.pop() > 2 * 4 * 64 * 64


# Costs


def test_small_costs_by_hand():
    assert cost_table(nn.Conv2d(1, 2, 3, bias=False), (1, 5, 5)).total.other == 0
    assert cost_table(nn.AdaptiveAvgPool2d((3, 2)), (1, 7, 5))[0].output_shape == (1, 3, 2)
    windows = (3 + 3 + 3) * (3 + 3)  # rows 0-2, 2-4, 4-6 of seven; columns 0-2, 2-4 of five
    assert cost_table(nn.AdaptiveAvgPool2d((3, 2)), (1, 7, 5)).total.other == windows
    gate = cost_table(Wrapped(lambda x: x + x[:, :, :1, :1].expand_as(x)), (2, 6, 6))
    assert gate.total.bytes_moved == 4 * (72 + 72 + 72)  # what is spread lies in the map's memory
    narrow = cost_table(Wrapped(lambda x: x * x.mean((2, 3), keepdim=True).expand(-1, -1, 6, 6)), (2, 6, 6))
    assert narrow.total.bytes_moved == 4 * (72 + 2) + 4 * (72 + 2 + 72)
    device = Device("balanced", 100.0, 10.0)
    assert device.seconds(1000, 100) == 20.0 and device.seconds(1, 100) == 10.0
    assert [tables.short(n) for n in (999, 1000, 1010, 25_600_000, 4_089_184_256, 2 * 10**12, 1.5)] == [
        "999", "1K", "1.01K", "25.6M", "4.09G", "2T", "1.5"]
    assert tables.short(999_600) == "1M"


@pytest.mark.filterwarnings("ignore")
def test_names_of_a_compiled_model_are_those_of_the_model():
    assert [row.name for row in cost_table(torch.compile(nn.Sequential(nn.ReLU())), (3,))] == ["0"]


def test_peak_of_a_step_by_hand():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    memory = {name: training_memory(model, (4,), batch_size=8, optimizer=name) for name in ("sgd", "adam")}
    assert memory["adam"].peak - memory["sgd"].peak == 2 * 64 + 4
    least = 64 + 3 * 128  # weights; input, both outputs
    assert memory["sgd"].peak >= least


def test_statistics_of_mixed_precision_are_kept_in_the_weights_type():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).train()
    memory = training_memory(model, (3, 8, 8), autocast=torch.bfloat16)
    rows = {row.name: row.saved for row in memory}
    assert rows["1"] == 2 * 4 * 36 + 2 * 4 * 4  # the map in two bytes, mean and deviation in four


class Halved(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.bfloat16())


@pytest.mark.parametrize(("norm", "training", "statistics"), [
    (nn.BatchNorm2d(4), True, 2 * 4), (nn.BatchNorm2d(4), False, 0), (nn.GroupNorm(2, 4), True, 2 * 2 * 2)])
def test_norms_of_maps_in_half_precision(norm, training, statistics):
    memory = training_memory(Halved(norm).train(training), (4, 8, 8), batch_size=2)
    assert memory.saved == 2 * 512 + 4 * statistics  # one for each channel, or each group of each image


def test_a_norm_of_the_input_makes_no_gradient_of_it():
    memory = training_memory(nn.BatchNorm2d(4).train(), (4, 8, 8), optimizer="sgd")
    state, statistics, loss = 4 * (4 * 4 + 2), 4 * 2 * 4, 2 * 4  # the counter has eight bytes; the sum of the outputs, and that sum added to 0
    assert memory.peak == state + 2 * 1024 + statistics + loss



# Depth and footprints


class Branches(nn.Module):
    def __init__(self, gated):
        super().__init__()
        self.long, self.short = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)), nn.Conv2d(2, 2, 1)
        self.gated = gated

    def forward(self, x):
        if self.gated:
            return x * self.long(x.mean((2, 3), keepdim=True)).sigmoid()
        return self.long(x) + self.short(x)


def test_depth_is_the_longest_path_without_gates():
    assert depth(nn.Sequential(nn.Conv2d(2, 2, 1), Branches(False)), (2, 4, 4)) == 3
    assert depth(nn.Sequential(nn.Conv2d(2, 2, 1), Branches(True)), (2, 4, 4)) == 1


def test_footprints_add_absolute_values_and_need_values():
    model = nn.Sequential(nn.Conv2d(2, 1, (1, 2), bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[[[1.0, -3.0]], [[-1.0, 1.0]]]]))
    found = gradient_footprint(model, torch.rand(1, 2, 3, 4), unit=(1, 1))
    assert found.map[1].tolist() == pytest.approx([0, 2 / 6, 4 / 6, 0])
    with torch.device("meta"):
        empty = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match="needs values.*meta device"):
        gradient_footprint(empty, torch.rand(1, 3, 8, 8))


def test_patterns_that_repeat_too_late_are_refused_by_name():
    """A map resized by odd ratios and cropped between: the period is the product of all lengths."""
    def network(*sizes):
        return nn.Sequential(*[layer for size in sizes
                               for layer in (nn.Upsample((size, size), mode="bilinear"), Wrapped(lambda x: x[..., 1:, 1:]))])

    assert receptive_field(network(11, 13), (1, 7, 7)).output.units == (12, 12)
    with pytest.raises(AnalysisError, match="'upsample_bilinear2d' .interpolate. in module '4'.*repeats only after 2431 units"):
        receptive_field(network(11, 13, 17), (1, 7, 7))


def test_the_parts_of_a_concatenation_keep_their_places():
    class Stacked(nn.Sequential):
        def forward(self, x):
            return torch.cat([self[0](x), x], 2)

    output = receptive_field(Stacked(nn.Conv2d(3, 3, 3, padding=1)), (3, 6, 6)).output
    assert output.units == (12, 6)
    assert [output.pixels((row, 0))[0] for row in (5, 6, 11)] == [(4, 5), (0, 0), (5, 5)]
