"""Diagrams: what is drawn is what the network does, and changes when the network does."""

import functools
import json
import pickle
import re

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.analysis.diagram import diagram
from cnnlib.analysis.diagram.structure import INPUT, OUTPUT, Box, Graph, Parallel, Repeat, Series, Unit
from cnnlib.layers import ConvNormAct
from cnnlib.registry import find_variant
from zoo import on_meta

FEW = ["alexnet_227", "vgg16", "googlenet", "resnet20", "resnet50", "preresnet20", "resnext50_32x4d", "seresnet20",
       "densenet_cifar",
       "fractalnet_cifar", "mobilenet_v2", "shufflenet_v2_x1_0", "nasnet_cifar", "convnext_tiny",
       "squeezenet1_0_simple"]


@functools.lru_cache(64)
def drawn(name):
    """Made once; leave it as it is."""
    return diagram(on_meta(name), find_variant(name).input_size, title=name)


def told(series) -> list:
    """A structure as nested lists of labels: ["3x3 conv, 64 | BN"], ("repeat", 3, [...]), ("branches", [...], ...)."""
    out = []
    for item in series.items:
        if isinstance(item, Unit):
            out.append(" | ".join(part.label for part in item.layers).replace("\u00d7", "x"))
        elif isinstance(item, Box):
            out.append(item.part.label)
        elif isinstance(item, Repeat):
            out.append(("repeat", item.times, told(item.body)))
        elif isinstance(item, Parallel):
            out.append(("branches", *(told(branch) for branch in item.branches)))
        else:
            out.append(("graph", len(item.nodes), len(item.edges)))
    return out


class Residual(nn.Module):
    """A small network whose parts tests exchange."""

    def __init__(self, join="add", stride=1, shortcut=True, depth=1):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.a = ConvNormAct(8, 8, 3, stride)
        self.b = ConvNormAct(8, 8, 3, activation=None)
        self.more = nn.Sequential(*(ConvNormAct(8, 8, 3) for _ in range(depth - 1)))
        self.project = nn.Conv2d(8, 8, 1, stride) if stride > 1 else nn.Identity()
        self.join, self.shortcut = join, shortcut
        self.out = nn.Linear(16 if join == "cat" and shortcut else 8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.more(self.b(self.a(x)))
        if self.shortcut:
            x = self.project(x)
            y = {"add": torch.add, "cat": lambda a, b: torch.cat([a, b], 1), "mul": torch.mul}[self.join](x, y)
        return self.out(y.mean((2, 3)))


def layers_of(**options):
    return told(diagram(Residual(**options), (3, 16, 16)).structure("", "block"))


CHAIN = ["3x3 conv, 8 | BN | ReLU", "3x3 conv, 8 | BN"]
END = ["global average pool", "fully connected, 5"]


def test_a_shortcut_is_seen_and_its_loss_too():
    assert layers_of() == ["3x3 conv, 8", ("branches", CHAIN, []), "+", *END]
    assert layers_of(shortcut=False) == ["3x3 conv, 8", *CHAIN, *END]


def test_a_concatenation_is_no_addition():
    assert layers_of(join="cat")[2] == "concatenate" and layers_of(join="mul")[2] == "x"
    part = next(part for part in diagram(Residual(join="cat"), (3, 16, 16)).parts if part.kind == "concatenate")
    assert part.output_shape == (16, 16, 16)


def test_a_stride_is_seen_where_it_stands():
    found = layers_of(stride=2)
    assert found[1] == ("branches", ["3x3 conv, 8, /2 | BN | ReLU", "3x3 conv, 8 | BN"], ["1x1 conv, 8, /2"])


def test_a_shortcut_that_drops_pixels_says_so():
    block = told(drawn("resnet20").structure("stages.1.0"))
    assert block[0][2] == ["subsample, /2, pad"] and told(drawn("resnet20").structure("stages.1.1"))[0][2] == []
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ZeroPad2d(1), nn.Flatten())
    assert "pad" in [layer.label for layer in diagram(plain, (3, 8, 8)).layers()]


def test_repeats_are_found_and_counted():
    branch = layers_of(depth=5)[1][1]
    assert branch[2] == ("repeat", 4, ["3x3 conv, 8 | BN | ReLU"])


def test_a_change_in_one_block_breaks_its_repeat():
    network = create_model("resnet20")
    assert told(diagram(network, (3, 32, 32)).structure("stages.1")) == ["BasicBlock", ("repeat", 2, ["BasicBlock"])]
    owner, name = next((module, name) for module in network.stages[1][1].modules() for name,
                       child in module.named_children()
                       if isinstance(child, nn.BatchNorm2d))
    setattr(owner, name, nn.Identity())
    changed = diagram(network, (3, 32, 32))
    assert told(changed.structure("stages.1")) == ["BasicBlock"] * 3, "the second lacks a norm"
    norms = [sum(layer.kind == "norm" for layer in changed.layers(changed.find(f"stages.1.{i}"))) for i in range(3)]
    assert norms == [2, 1, 2]


def test_repeats_compare_widths():
    network = nn.Sequential(*(nn.Conv2d(width, other, 3, padding=1) for width,
                              other in [(3, 8), (8, 8), (8, 16), (16, 16)]))
    assert told(diagram(network, (3, 8, 8)).structure("", "block")) == [
        ("repeat", 2, ["3x3 conv, 8"]), ("repeat", 2, ["3x3 conv, 16"])]
    pooled = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
                           nn.MaxPool2d(2))
    assert told(diagram(pooled, (3, 8, 8)).structure("", "block")) == [
        "3x3 conv, 8", "2x2 max pool, /2", "3x3 conv, 8", "2x2 max pool, /2"], "equal words, but other sizes"


@pytest.mark.parametrize("name", FEW)
def test_parts_add_up_to_the_cost_table(name):
    found = drawn(name)
    rows = [row for row in cost_table(on_meta(name).eval(), find_variant(name).input_size) if row.called]
    whole = found.parts[0]
    assert (whole.macs, whole.params) == (sum(row.macs for row in rows), sum(row.params for row in rows))
    for part in found.parts:
        if not part.is_layer:
            layers = found.layers(part)
            assert part.params == sum(layer.params for layer in layers) and part.macs == sum(layer.macs
                                                                                             for layer in layers)


@pytest.mark.parametrize("name", FEW)
def test_edges_are_a_graph_from_the_input_to_the_output(name):
    found = drawn(name)
    ids = {layer.id for layer in found.layers()}
    read, written = {b for _, b in found.edges}, {a for a, _ in found.edges}
    assert ids <= read and ids <= written and INPUT in written and OUTPUT in read
    order = {layer.id: i for i, layer in enumerate(found.layers())}
    assert sum(layer.kind == "conv" for layer in found.layers()) == sum(
        isinstance(module, nn.Conv2d) for module in on_meta(name).modules()) - unused_convolutions(name)
    assert all(a == INPUT or b == OUTPUT or a != b for a, b in found.edges) and order
    for layer in found.layers():
        if layer.kind in ("add", "concatenate", "multiply", "mean"):
            assert len({a for a, b in found.edges if b == layer.id}) >= 2, layer


def unused_convolutions(name):
    """Convolutions that evaluation does not call: those of auxiliary classifiers."""
    called = {row.name for row in cost_table(on_meta(name).eval(), find_variant(name).input_size) if row.called}
    return sum(isinstance(module, nn.Conv2d) and key not in called for key, module in on_meta(name).named_modules())


def test_a_module_called_twice_counts_once():
    shared = nn.Conv2d(4, 4, 3, padding=1)
    found = diagram(nn.Sequential(shared, nn.ReLU(), shared), (4, 8, 8))
    assert found.parts[0].params == sum(p.numel() for p in shared.parameters()) and found.parts[0].macs == 2 * 144 * 64
    assert [layer.params for layer in found.layers() if layer.kind == "conv"] == [148, 0]


def test_a_whole_network_layer_by_layer():
    columns = told(drawn("resnet20").structure("", "block"))
    assert columns[0] == "3x3 conv, 16 | BN | ReLU" and columns[1][:2] == ("repeat", 3)
    assert columns[1][2] == [("branches", ["3x3 conv, 16 | BN | ReLU", "3x3 conv, 16 | BN"], []), "+", "ReLU"]
    assert columns[-1] == "fully connected, 10"


@pytest.mark.parametrize("name", ["resnet34", *FEW])
def test_what_repeats_is_a_whole_block(name):
    def check(series):
        for item in series.items:
            if isinstance(item, Repeat):
                first, last = item.body.items[0], item.body.items[-1]
                assert not (isinstance(first, Unit) and first.layers[0].kind in ("add", "concatenate", "multiply"))
                assert not isinstance(last, Parallel)
                check(item.body)

    check(drawn(name).structure("", "block"))
    if name == "resnet34":
        repeats = [item.times for item in drawn(name).structure("", "block").items if isinstance(item, Repeat)]
        assert repeats == [3, 3, 5, 2]


def test_plain_data():
    found = drawn("resnet20")
    assert pickle.loads(pickle.dumps(found)) == found
    assert json.loads(json.dumps(found.to_dict()))["parts"][0]["params"] == found.parts[0].params


def test_stages_of_the_book_and_of_others():
    labels = {
        "resnet50": ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"],
        "mobilenet_v2": ["stem", *(f"stage {i}" for i in range(1, 8)), "head"],
        "lenet5": ["stem", "stage 1", "stage 2", "head"],  # between stages alone stands a transition
        "densenet_cifar": ["stem", *(f"stage {i}" for i in range(1, 4)), "head"],
    }
    for name, expected in labels.items():
        found = drawn(name)
        assert [found.parts[child].label for child in found.parts[0].children][-len(expected):] == expected, name


def others(name):
    from cnnlib.vision import torchvision

    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None,
                                            **({"init_weights": False} if name == "googlenet" else {}))


@pytest.mark.parametrize("name, expected", [
    ("resnet18", ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"]),
    ("vgg16", ["stage 1", "stage 2", "stage 3", "stage 4", "stage 5", "head"]),
    ("googlenet", ["stem", "stage 1", "stage 2", "stage 3", "head"]),
    ("densenet121", ["stem", "stage 1", "Transition", "stage 2", "Transition", "stage 3", "Transition", "stage 4",
                     "head"]),
    ("mobilenet_v2", ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "stage 5", "head"]),
    ("swin_t", ["stem", "stage 1", "PatchMerging", "stage 2", "PatchMerging", "stage 3", "PatchMerging", "stage 4", "head"]),
    ("vit_b_16", ["stem", "encoder", "head"]),
])
def test_networks_without_stem_and_stages_get_them(name, expected):
    found = diagram(others(name), (3, 224, 224))
    assert [found.parts[child].label for child in found.parts[0].children] == expected


def test_stages_of_plain_networks_are_those_of_their_modules():
    """Not a stage for each block: that a network has no shortcuts changes nothing about its stages."""
    for name, depths in (("plain20", (3, 3, 3)), ("plain34", (3, 4, 6, 3)), ("resnet20", (3, 3, 3))):
        found = drawn(name)
        assert [found.parts[child].label for child in found.parts[0].children] == [
            "stem", *(f"stage {i + 1}" for i in range(len(depths))), "head"], name
        assert [len(found.find(f"stages.{i}").children) for i in range(len(depths))] == list(depths)


def test_modules_with_names_of_their_own_keep_them():
    class Block(nn.Module):
        def __init__(self, width, stride=1):
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(width, width, 3, stride, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1))
            self.b = nn.Conv2d(width, width, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x):
            return self.a(x) + self.b(x)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
            self.pool = nn.MaxPool2d(2)
            self.trunk = nn.Sequential(Block(8), Block(8), Block(8))
            self.neck = nn.Sequential(Block(8, 2), Block(8))
            self.last = nn.Conv2d(8, 16, 1)
            self.out = nn.Linear(16, 5)

        def forward(self, x):
            x = self.last(self.neck(self.trunk(self.pool(self.entry(x)))))
            return self.out(x.mean((2, 3)))

    found = diagram(Named(), (3, 64, 64))
    assert [found.parts[child].label for child in found.parts[0].children] == ["stem", "trunk", "neck", "head"]
    assert found.find("entry.0").name == "entry.0" and "stem" in [found.parts[found.find("entry.0").parent].label]
    assert [layer.label for layer in found.layers(found.find(found.stages[-1]))] == [
        "1\u00d71 conv, 16", "global average pool", "fully connected, 5"]


def test_sums_in_steps_are_one_sum():
    class Three(nn.Module):
        def __init__(self, kept=False):
            super().__init__()
            self.convs, self.kept = nn.ModuleList(nn.Conv2d(4, 4, k, padding=k // 2) for k in (1, 3, 5)), kept

        def forward(self, x):
            first = self.convs[0](x) + self.convs[1](x)
            whole = first + self.convs[2](x)
            return whole * first if self.kept else whole

    assert told(diagram(Three(), (4, 8, 8)).structure("", "block")) == [
        ("branches", ["1x1 conv, 4"], ["3x3 conv, 4"], ["5x5 conv, 4"]), "+"]
    kept = diagram(Three(kept=True), (4, 8, 8))
    assert sum(layer.kind == "add" for layer in kept.layers()) == 2, "a sum that something else reads stays"


def test_torchvision_and_ours_look_alike_inside():
    theirs, ours = diagram(others("resnet50"), (3, 224, 224)), drawn("resnet50")
    assert told(theirs.structure("layer2.0", "block")) == told(ours.structure("stages.1.0", "block"))


def test_words_of_papers():
    cases = [
        (nn.Conv2d(3, 64, 7, 2, padding=3), (3, 32, 32), "7x7 conv, 64, /2"),
        (nn.Conv2d(8, 8, (1, 7), groups=8), (8, 32, 32), "1x7 depthwise conv, 8"),
        (nn.Conv2d(8, 16, 3, groups=8), (8, 32, 32), "3x3 depthwise conv, 16"),
        (nn.Conv2d(8, 16, 3, groups=4), (8, 32, 32), "3x3 grouped conv, 16, 4 groups"),
        (nn.Conv2d(8, 16, 3, (2, 1)), (8, 32, 32), "3x3 conv, 16, /2x1"),
        (nn.Conv2d(8, 16, 3, dilation=2), (8, 32, 32), "3x3 conv, 16, dilated 2"),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), (8, 4, 4), "2x2 transposed conv, 4, x2"),
        (nn.MaxPool2d(3, 2, 1), (8, 32, 32), "3x3 max pool, /2"),
        (nn.AvgPool2d(2), (8, 32, 32), "2x2 average pool, /2"),
        (nn.AdaptiveAvgPool2d(1), (8, 32, 32), "global average pool"),
        (nn.AdaptiveAvgPool2d(6), (8, 32, 32), "average pool to 6x6"),
        (nn.Linear(8, 16), (4, 4, 8), "linear (1x1 conv), 16"), (nn.Linear(8, 16), (4, 8), "linear, 16"),
        (nn.Linear(8, 1000), (8,), "fully connected, 1,000"),
        (nn.GELU(), (8,), "GELU"), (nn.LayerNorm(8), (8,), "LN"), (nn.GroupNorm(2, 8), (8, 4, 4), "GN"),
        (nn.LocalResponseNorm(5), (8, 4, 4), "LRN"), (nn.Upsample(scale_factor=2), (8, 4, 4), "upsample x2"),
        (nn.Hardswish(), (8,), "hard swish"), (nn.ChannelShuffle(2), (8, 4, 4), "channel shuffle"),
        (nn.Conv2d(8, 16, 3, dilation=(1, 2)), (8, 32, 32), "3x3 conv, 16, dilated 1x2"),
        (nn.Conv1d(8, 16, 5, 2), (8, 32), "1D conv of size 5, 16, /2"), (nn.Conv3d(8, 16, 3), (8, 9, 9, 9), "3x3x3 conv, 16"),
        (nn.MaxPool1d(2), (8, 32), "1D max pool of size 2, /2"), (nn.AvgPool1d(3, 2), (8, 32), "1D average pool of size 3, /2"),
        (nn.AdaptiveAvgPool3d(1), (8, 9, 9, 9), "global average pool"),
    ]
    for module, size, label in cases:
        part, = diagram(nn.Sequential(module), size).layers()
        assert part.label.replace("\u00d7", "x") == label


class Filtered(nn.Module):
    """A convolution by a filter that is given, or that is made of the input."""

    def __init__(self, groups=4, out=4, buffer=True, learned=False):
        super().__init__()
        self.groups = groups
        if buffer:
            self.register_buffer("weight", torch.ones(out, 4 // groups, 3, 3) / 9)
        else:
            self.make = nn.Linear(4, out * 4 // groups * 9)
        self.out = out

    def forward(self, x):
        weight = self.weight if hasattr(self, "weight") else self.make(x.mean((0, 2, 3))).view(self.out, -1, 3, 3)
        return nn.functional.conv2d(x, weight, stride=2, padding=1, groups=self.groups)


class BlurPool2d(Filtered):
    pass


@pytest.mark.parametrize("module, label, kind", [
    (BlurPool2d(), "3x3 blur pool, /2", "pool"), (Filtered(), "3x3 fixed filter, /2", "pool"),
    (Filtered(groups=1, out=8), "3x3 fixed conv, 8, /2", "conv"),
    (Filtered(groups=1, out=8, buffer=False), "3x3 dynamic conv, 8, /2", "conv"),
])
def test_filters_that_are_not_learned_are_told_from_those_that_are(module, label, kind):
    found = diagram(nn.Sequential(nn.Conv2d(3, 4, 1), module), (3, 8, 8)).layers()[-1]
    assert (found.label.replace("\u00d7", "x"), found.kind, found.params) == (label, kind, 0)


class Standardized(nn.Conv2d):
    """A convolution by weights that are made of parameters, in several steps."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        weight = self.gain * nn.functional.layer_norm(self.weight, self.weight.shape[1:])
        weight += self.gain
        return nn.functional.conv2d(x, weight.mul_(0.5) / 2, self.bias)


def test_weights_that_are_made_of_parameters_are_learned():
    convolution, = diagram(nn.Sequential(Standardized(4, 8, 3)), (4, 8, 8)).layers()
    assert (convolution.label.replace("\u00d7", "x"), convolution.kind, convolution.params) == ("3x3 conv, 8", "conv", 304)
    assert not any("fixed" in layer.label for layer in drawn("nfnet_f0").layers())


def test_a_long_row_of_blocks_has_stages():
    class Block(nn.Module):
        def __init__(self, width, out, stride):
            super().__init__()
            self.a, self.b = ConvNormAct(width, out, 3, stride), ConvNormAct(out, out, 3)
            self.shortcut = nn.Conv2d(width, out, 1, stride) if stride > 1 else None

        def forward(self, x):
            return self.b(self.a(x)) + (x if self.shortcut is None else self.shortcut(x))

    class Ending(Block):
        def forward(self, x):
            return self.b(self.a(x))

    Ending.__name__ = "Block"
    rows = [Block(8, 8, 2), *(Block(8, 8, 1) for _ in range(15)), Block(8, 16, 2), Ending(16, 16, 1)]
    network = nn.Sequential(nn.Sequential(ConvNormAct(3, 8, 3), ConvNormAct(8, 8, 3)), *rows,
                            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)))
    found = diagram(network, (3, 32, 32))
    parts = [found.parts[child] for child in found.parts[0].children]
    assert [len(part.children) for part in parts[1:-1]] == [16, 2] and all("stage" in part.label for part in parts[1:-1])


def test_anti_aliased_pooling_is_drawn_as_what_it_is():
    labels = [layer.label for layer in drawn("resnetblur50d").layers()]
    assert labels.count("3\u00d73 blur pool, /2") == 4 and "matrix product" not in labels


class Scaled(nn.Module):
    def __init__(self, *numbers, forward=lambda conv, x, number: x + conv(x / number)):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in numbers)
        self.numbers, self.step = numbers, forward

    def forward(self, x):
        for block, number in zip(self.blocks, self.numbers):
            x = self.step(block, x, number)
        return x


def test_constants_that_differ_from_turn_to_turn_are_told_as_their_range():
    inside = [("branches", ["/ 1.02 to 1.08 | 3x3 conv, 4"], []), "+"]
    assert told(diagram(Scaled(1.02, 1.04, 1.08), (4, 8, 8)).structure("", "block")) == [("repeat", 3, inside)]
    assert told(diagram(Scaled(1.5, 1.5), (4, 8, 8)).structure("", "block"))[0][2][0][1] == ["/ 1.5 | 3x3 conv, 4"]
    deep = drawn("nfnet_f2").structure("stages.2")
    assert told(deep) == ["NormFreeBlock", ("repeat", 17, ["NormFreeBlock"])]


@pytest.mark.parametrize("step, label", [
    (lambda conv, x, n: conv(x) - n, "\u2212 3"), (lambda conv, x, n: n - conv(x), "3 \u2212 x"),
    (lambda conv, x, n: -conv(x), "\u2212"), (lambda conv, x, n: conv(x) * n, "x 3"),
    (lambda conv, x, n: conv(x) + n, "+ 3"), (lambda conv, x, n: 0 - conv(x), "0 \u2212 x"),
    (lambda conv, x, n: conv(x) * 0, "x 0"), (lambda conv, x, n: conv(x) + 1, "+ 1"),
])
def test_a_constant_and_what_is_done_with_it(step, label):
    assert told(diagram(Scaled(3, forward=step), (4, 8, 8)).structure("", "block")) == [f"3x3 conv, 4 | {label}"]


@pytest.mark.parametrize("step", [
    lambda conv, x, n: sum([conv(x), x]), lambda conv, x, n: 1 * (0 + conv(x) / 1 - 0) + x])
def test_what_changes_nothing_is_not_drawn(step):
    plain = told(diagram(Scaled(1, forward=lambda conv, x, n: conv(x) + x), (4, 8, 8)).structure("", "block"))
    assert told(diagram(Scaled(1, forward=step), (4, 8, 8)).structure("", "block")) == plain


def test_poolings_and_resizes_to_the_same_size_are_not_drawn():
    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 8), nn.AdaptiveAvgPool2d(1)

        def forward(self, x):
            return nn.functional.interpolate(self.pool(self.conv(x)), size=(1, 1))

    assert told(diagram(Same(), (3, 8, 8)).structure("", "block")) == ["8x8 conv, 4"]
    assert told(diagram(Same(), (3, 9, 9)).structure("", "block")) == ["8x8 conv, 4", "global average pool"]


def test_a_scaled_activation_is_an_activation():
    kinds = {layer.label: layer.kind for layer in drawn("lenet5").layers()}
    assert kinds["ScaledTanh"] == "act" and "global average pool" not in kinds

    class Gate(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x)

    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.weight * torch.tanh(x)

    for module, kind in ((Gate(), "act"), (Affine(), "other")):
        assert diagram(nn.Sequential(nn.Conv2d(3, 4, 1), module), (3, 4, 4)).layers()[-1].kind == kind


@pytest.mark.parametrize("stack", [
    lambda: [nn.GELU(), nn.Conv2d(4, 4, 3, padding=1)], lambda: [nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)]])
def test_stacks_that_begin_with_an_activation_are_alike(stack):
    series = diagram(nn.Sequential(*(layer for _ in range(4) for layer in stack())), (4, 8, 8)).structure()
    found = [[layer.kind for layer in unit.layers] for unit in series.items if isinstance(unit, Unit)]
    assert found == 4 * [found[0]] and len(found[0]) == len(stack())


def test_the_middle_of_xception_is_three_times_the_same():
    stacks = 3 * ["ReLU | 3x3 depthwise conv, 728 | 1x1 conv, 728 | BN"]
    assert told(drawn("xception").structure("stages.2.2")) == [("branches", stacks, []), "+"]


def test_splits_shuffles_gates_and_means():
    units = told(drawn("shufflenet_v2_x1_0").structure("stages.0.1"))
    assert units[0] == "split" and units[-2:] == ["concatenate", "channel shuffle"] and units[1][2] == []
    gate = told(drawn("seresnet20").structure("stages.0.0"))[0][1]
    assert gate[2][1][-1].endswith("sigmoid") and gate[2][2] == [] and gate[3] == "x"
    joins = [layer.label for layer in drawn("fractalnet_cifar").layers() if layer.kind == "mean"]
    assert joins and set(joins) == {"mean"}


def test_a_shuffle_written_with_views_is_a_shuffle():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            x = self.a(x)
            n, c, h, w = x.shape
            return self.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    expected = ["1x1 conv, 8", "channel shuffle", "1x1 conv, 4"]
    assert told(diagram(Shuffled(), (4, 6, 6)).structure("", "block")) == expected


def test_a_chain_is_cut_where_the_size_changes():
    def conv():
        return nn.Conv2d(4, 4, 3, padding=1)

    chain = nn.Sequential(conv(), nn.MaxPool2d(3, 1, 1), conv(), nn.MaxPool2d(2), conv(), nn.MaxPool2d(2), conv(),
                          nn.Flatten(), nn.Linear(64, 3))
    assert diagram(chain, (4, 16, 16)).stages == ["0-3", "4-5", "6", "7-8"]


def test_dense_blocks_grow_by_concatenation():
    found = told(drawn("densenet_cifar").structure("stages.0"))
    assert found == [("repeat", 2, [("branches", ["DenseLayer"], []), "concatenate"])]


def test_a_graph_that_is_not_series_parallel_is_kept_as_a_graph():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            return self.c(a) + self.d(a + b) + b

    series = diagram(Crossed(), (3, 4, 4)).structure("", "block")
    graph = next(item for item in series.items if isinstance(item, Graph))
    assert sum(part.kind == "conv" for part in series.parts()) == 4
    assert all(a == -1 or b == -2 or 0 <= a < len(graph.nodes) and 0 <= b < len(graph.nodes) for a, b, _ in graph.edges)


class TwoInputs(nn.Module):
    """A block that reads two maps: the one through a convolution, the other through pooling."""

    def __init__(self, swapped=False, one=False, results=1):
        super().__init__()
        self.conv, self.pool = nn.Conv2d(4, 4, 3, padding=1), nn.MaxPool2d(3, 1, 1)
        self.after = nn.Conv2d(4, 4, 1)
        self.swapped, self.one, self.results = swapped, one, results

    def forward(self, a, b):
        a, b = (b, a) if self.swapped else (a, a) if self.one else (a, b)
        y = self.conv(a)
        joined = y + self.pool(b)
        return (self.after(joined), y)[: self.results]


class WithTwo(nn.Module):
    """A stem and a body whose maps a block reads, and a head; `image`: the block reads the image in the place of the
    stem."""

    def __init__(self, image=False, **options):
        super().__init__()
        self.stem, self.body = nn.Conv2d(4, 4, 5, padding=2), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.block, self.head = TwoInputs(**options), nn.Conv2d(4, 2, 1)
        self.image = image

    def forward(self, x):
        first = self.stem(x)
        results = self.block(x if self.image else first, self.body(first))
        return self.head(sum(results))


def with_two(**options):
    return diagram(WithTwo(**options), (4, 8, 8))


def ends_of(series, kind):
    return [(part.details["number"], part.label, part.output_shape) for part in series.parts() if part.kind == kind]


def test_a_block_of_two_maps_has_an_input_for_each():
    series = with_two().structure("block", "block")
    assert sorted(ends_of(series, "input")) == [(1, "from stem", (4, 8, 8)), (2, "from body", (4, 8, 8))]
    assert told(series) == [("branches", ["from stem", "3x3 conv, 4"], ["from body", "3x3 max pool, /1"]), "+",
                            "1x1 conv, 4"] or told(series)[0][1:] == (
        ["from stem", "3x3 conv, 4"], ["from body", "3x3 max pool"])
    swapped = told(with_two(swapped=True).structure("block", "block"))
    assert sorted(swapped[0][1:]) == [["from body", "3x3 conv, 4"], ["from stem", "3x3 max pool"]]
    one = with_two(one=True).structure("block", "block")
    assert ends_of(one, "input") == [] and told(one)[0] == ("branches", ["3x3 conv, 4"], ["3x3 max pool"])
    image = with_two(image=True).structure("block", "block")
    assert [label for _, label, _ in sorted(ends_of(image, "input"))] == ["from the input", "from stem"], "the stem goes on to the end of the body"


def test_a_block_that_gives_two_maps_has_an_output_for_each():
    assert ends_of(with_two().structure("block", "block"), "output") == []
    found = with_two(results=2)
    ends = ends_of(found.structure("block", "block"), "output")
    assert len(ends) == 2 and all(label.startswith("to ") for _, label, _ in ends)


def test_inputs_of_a_cell_are_the_two_cells_before_it():
    found = drawn("nasnet_mobile")
    for i in (2, 3):
        ends = sorted(ends_of(found.structure(f"stages.0.{i}"), "input"))
        assert ends == [(1, f"from stages.0.{i - 2}", (264, 28, 28)), (2, f"from stages.0.{i - 1}", (264, 28, 28))]
    boxes = {box.part.name: box for item in found.structure("stages.0").items if isinstance(item, Graph)
             for box in item.nodes if isinstance(box, Box)}
    assert boxes["stages.0.2"].key() == boxes["stages.0.3"].key(), "equal inside, whatever they read"
    inside = found.structure("stages.0.2").items[0]
    readers = {series.items[0].layers[0].label: b for a, b, series in inside.edges
               if a == INPUT and isinstance(series.items[0], Unit)}
    assert len(readers) == 2 and len(set(readers.values())) == 2


def test_maps_of_one_module_are_told_apart():
    labels = [label for _, label, _ in sorted(ends_of(drawn("hrnet_w18").structure("stages.1.1"), "input"))]
    assert labels == ["from stages.1.0.paths.0", "from stages.1.0.paths.1"]
    labels = [label for _, label, _ in sorted(ends_of(drawn("hrnet_w18").structure("head"), "input"))]
    assert labels == [f"from stage 4, output {i}" for i in (1, 2, 3, 4)]


class SmallUNet(nn.Module):
    """Three times down and up again, beside the maps of the way down, or some of them."""

    def __init__(self, skips=(0, 1, 2), padding=1):
        super().__init__()
        self.down = nn.ModuleList(self.double(a, b, padding) for a, b in [(3, 4), (4, 8), (8, 16), (16, 32)])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in (4, 8, 16))
        self.conv = nn.ModuleList(self.double(2 * w if i in skips else w, w, padding) for i, w in enumerate((4, 8, 16)))
        self.out, self.skips = nn.Conv2d(4, 2, 1), skips

    @staticmethod
    def double(a, b, padding):
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=padding), nn.ReLU(), nn.Conv2d(b, b, 3, padding=padding),
                             nn.ReLU())

    def forward(self, x):
        maps = []
        for i, stage in enumerate(self.down):
            x = stage(nn.functional.max_pool2d(x, 2) if i else x)
            maps.append(x)
        for i in (2, 1, 0):
            x = self.up[i](x)
            cut = (maps[i].shape[-1] - x.shape[-1]) // 2
            beside = maps[i][:, :, cut : cut + x.shape[-1], cut : cut + x.shape[-1]]
            x = self.conv[i](torch.cat([beside, x], 1) if i in self.skips else x)
        return self.out(x)


def test_a_network_that_is_no_chain_has_stages_too():
    found = diagram(SmallUNet(), (3, 64, 64))
    labels = [found.parts[child].label for child in found.parts[0].children]
    assert labels == [*(f"down {i}" for i in (1, 2, 3, 4)), *(f"up {i}" for i in (1, 2, 3)), "1\u00d71 conv, 2"]
    second = told(found.structure(found.stages[1]))
    assert second[0] == "2x2 max pool, /2"
    assert sum(part.params for part in found.parts if part.parent == 0) == sum(p.numel() for p in SmallUNet().parameters())
    series = found.structure(found.stages[5])
    assert [label for _, label, _ in sorted(ends_of(series, "input"))] == ["from down 2", "from up 1"]
    unpadded = diagram(SmallUNet(padding=0), (3, 188, 188))
    assert [unpadded.parts[child].label for child in unpadded.parts[0].children] == labels


def test_what_is_read_from_outside_ends_a_stage_and_so_does_another_size():
    class Skipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(16))
            self.end = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            maps = [x]
            for i, conv in enumerate(self.convs):
                maps.append(conv(nn.functional.max_pool2d(maps[-1], 2) if i == 9 else maps[-1]))
            return self.end(torch.cat([maps[3], nn.functional.interpolate(maps[-1], scale_factor=2)], 1))

    found = diagram(Skipped(), (4, 8, 8))
    parts = [found.parts[child] for child in found.parts[0].children]
    assert [sum(layer.kind == "conv" for layer in found.layers(part)) for part in parts] == [3, 6, 7, 1]
    assert [part.label for part in parts] == ["stage 1", "stage 2", "stage 3", "head"]
    assert [layer.label for layer in found.layers(parts[3])][:1] == ["upsample \u00d72"]


def test_a_forward_written_with_functions_alone():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.v = nn.Parameter(torch.zeros(4, 3, 3, 3)), nn.Parameter(torch.zeros(4, 4, 3, 3))

        def forward(self, x):
            x = torch.relu(nn.functional.conv2d(x, self.w))
            return x + nn.functional.conv2d(x, self.v, padding=1)

    assert told(diagram(Plain(), (3, 8, 8)).structure("", "block")) == [
        "3x3 conv, 4 | ReLU", ("branches", ["3x3 conv, 4"], []), "+"]


def test_the_model_is_left_as_it_was():
    network = create_model("resnet20").train()
    network.head.eval()
    before = {name: module.training for name, module in network.named_modules()}
    state = {key: value.clone() for key, value in network.state_dict().items()}
    diagram(network, (3, 32, 32))
    assert before == {name: module.training for name, module in network.named_modules()}
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("forward", [lambda x: x, lambda x: torch.zeros(1, 5), lambda x: None, lambda x: x.view(1, -1)])
def test_what_computes_nothing_is_refused(forward):
    network = nn.Sequential(nn.Identity())
    network.forward = forward
    with pytest.raises(ValueError, match="Sequential: no layer leads from its input to its output"):
        diagram(network, (3, 8, 8))


def test_wrong_names_are_named():
    found = drawn("resnet20")
    with pytest.raises(ValueError, match=r"'stages.7' is not a part of resnet20.*stages.0"):
        found.find("stages.7")
    with pytest.raises(ValueError, match="zoom='layer'.*'network', 'stage' or 'block'"):
        found.structure("", "layer")
    with pytest.raises(TypeError, match="nn.Module"):
        diagram("resnet20", (3, 32, 32))


def test_a_module_is_found_before_its_first_function():
    found = diagram(others("densenet121"), (3, 224, 224))
    layer = found.find("features.denseblock1.denselayer3")
    assert not layer.is_layer and [part.label for part in found.layers(layer) if part.kind == "conv"] == [
        "1\u00d71 conv, 128", "3\u00d73 conv, 32"]


def test_every_module_has_a_place():
    found = drawn("resnet20")
    for name, module in on_meta("resnet20").named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert found.find(name).name == name
    assert re.match("stage", found.find("stages.1").label) and isinstance(found.structure(), Series)
