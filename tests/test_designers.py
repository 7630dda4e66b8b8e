"""Inception and block designer: every number is that of the package's own modules, on a grid and in a browser."""

import itertools
import random

import pytest
import torch
import traitlets
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.layers import norm_act
from cnnlib.models.googlenet import TABLE, Inception, InceptionRow, NaiveInception
from cnnlib.models.mobilenet import DepthwiseSeparable, InvertedResidual
from cnnlib.models.preresnet import PreActBasicBlock, PreActBlock, PreActBottleneck
from cnnlib.models.resnet import BasicBlock, Bottleneck
from cnnlib.models.resnext import ResNeXtBlock
from cnnlib.models.senet import SEBasicBlock, SEBottleneck, squeeze_excitation
from cnnlib.models.shufflenet import ShuffleUnit, ShuffleUnitV2
from cnnlib.models.squeezenet import FireModule
from cnnlib.widgets import BlockDesigner, InceptionDesigner
from cnnlib.widgets.block import KINDS, LIMITS, own_width
from cnnlib.widgets.inception import PRESETS
from browsing import integers, type_into
from test_widgets import node  # noqa: F401 (fixture)

FIELDS = InceptionRow._fields


def costs(make, channels, size):
    """The rows with parameters or multiply-adds, and the shape of the output, of the block that `make` returns."""
    with torch.device("meta"):
        table = cost_table(make().eval(), (channels, size, size))
    return table, table[-1].output_shape


# --- the Inception module ---


def inception_modules(setting):
    row = InceptionRow(*(setting[name] for name in FIELDS))
    return {
        "naive": lambda: NaiveInception(setting["in_channels"], row.conv1x1, row.conv3x3, row.conv5x5),
        "reduced": lambda: Inception(setting["in_channels"], row),
    }


def random_inception(rng):
    return {"in_channels": rng.randint(1, 600), "size": rng.randint(1, 40), **{name: rng.randint(1, 300) for name in FIELDS}}


def test_inception_modules_cost_what_the_table_says(node):
    rng = random.Random(0)
    settings = [*PRESETS.values(), *(random_inception(rng) for _ in range(20))]
    for setting, forms in zip(settings, node("inception", [["inceptionForms", setting] for setting in settings]), strict=True):
        for name, make in inception_modules(setting).items():
            table, shape = costs(make, setting["in_channels"], setting["size"])
            layers = [layer for branch in forms[name]["branches"] for layer in branch]
            expected = [row for row in table if row.kind in ("Conv2d", "MaxPool2d")]
            assert [(layer["params"], layer["macs"]) for layer in layers] == [(row.params, row.macs) for row in expected]
            assert [layer["to"] for layer in layers] == [row.output_shape[0] for row in expected]
            assert (forms[name]["params"], forms[name]["macs"]) == (table.total.params, table.total.macs)
            assert forms[name]["channels"] == sum(forms[name]["outputs"]) == shape[0]


def test_presets_are_the_modules_of_googlenet(node):
    with torch.device("meta"):
        table = cost_table(create_model("googlenet_2014").eval(), (3, 224, 224))
    forms = node("inception", [["inceptionForms", PRESETS[name]] for name in TABLE])
    modules = {}
    for row in table:
        stage, _, rest = row.name.removeprefix("stages.").partition(".")
        if row.name.startswith("stages.") and row.kind == "Conv2d":
            modules.setdefault((stage, rest.partition(".")[0]), []).append(row)
    assert len(modules) == len(TABLE)
    for rows, form in zip(modules.values(), forms, strict=True):
        assert sum(row.params for row in rows) == form["reduced"]["params"]
        assert sum(row.macs for row in rows) == form["reduced"]["macs"]


def test_worked_example_of_inception(node):
    forms, = node("inception", [["inceptionForms", PRESETS["example"]]])
    area = 28 * 28
    naive = area * (128 * 256 + 192 * 9 * 256 + 96 * 25 * 256)
    reduced = area * (3 * 64 * 256 + 128 * 256 + 192 * 9 * 64 + 96 * 25 * 64)
    assert (forms["naive"]["macs"], forms["reduced"]["macs"]) == (naive, reduced) == (854_196_224, 271_351_808)
    assert (forms["naive"]["channels"], forms["reduced"]["channels"]) == (672, 480)


# --- blocks ---


def activated_first(channels, reduction, *convolutions):
    """A pre-activated block of any convolutions, from the package's pieces, squeeze-and-excitation at its end."""
    layers = [convolutions[0]]
    for convolution in convolutions[1:]:
        layers += [*norm_act(convolution.in_channels), convolution]
    if reduction:
        layers.append(squeeze_excitation(channels, reduction))
    return PreActBlock(channels, nn.Sequential(*layers), nn.Identity(), channels)


def blocks_of(setting):
    """Every way in which the package makes the block of this setting."""
    kind, channels, size, width, groups, reduction, order = setting.values()
    if kind == "fire":
        return [lambda: FireModule(channels, width)]
    if kind == "separable":
        return [lambda: DepthwiseSeparable(channels, channels)]
    if kind == "inverted":
        return [lambda: InvertedResidual(channels, channels, expanded_channels=width,
                                         squeeze_channels=width // reduction if reduction else None)]
    if kind == "shuffle":
        return [lambda: ShuffleUnit(channels, channels, 1, groups=groups)]
    if kind == "shuffle_v2":
        return [lambda: ShuffleUnitV2(channels, channels, 1)]
    if kind == "basic":
        if order == "pre":
            def conv():
                return nn.Conv2d(channels, channels, 3, padding=1, bias=False)

            made = [lambda: activated_first(channels, reduction, conv(), conv())]
            return made if reduction else [*made, lambda: PreActBasicBlock(channels, channels)]
        if reduction:
            return [lambda: SEBasicBlock(channels, channels, reduction=reduction)]
        return [lambda: BasicBlock(channels, channels)]
    groups = groups if kind == "resnext" else 1
    plain = width * 4 == channels and groups == 1 and not reduction
    if order == "pre":
        made = [lambda: activated_first(
            channels, reduction, nn.Conv2d(channels, width, 1, bias=False),
            nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False), nn.Conv2d(width, channels, 1, bias=False))]
        return [*made, lambda: PreActBottleneck(channels, width)] if plain else made
    shape = {"cardinality": groups, "group_width": width // groups}
    if reduction:
        return [lambda: SEBottleneck(channels, channels, **shape, reduction=reduction)]
    made = [lambda: ResNeXtBlock(channels, channels, **shape)]
    return [*made, lambda: Bottleneck(channels, width)] if plain else made


def layers_of(table, order):
    """(params, macs) of each convolution with its normalization, and of squeeze-and-excitation, in forward order."""
    layers, waiting = [], 0
    for row in table:
        part = row.name.rpartition(".")[2]
        if part == "excite":
            layers[-1] = (layers[-1][0] + row.params, layers[-1][1] + row.macs)
        elif row.kind == "Conv2d":
            layers.append((waiting + row.params, row.macs))
            waiting = 0
        elif row.kind == "BatchNorm2d" and order == "pre":
            waiting = row.params
        elif row.kind == "BatchNorm2d":
            layers[-1] = (layers[-1][0] + row.params, layers[-1][1])
    return layers


def setting_of(kind, channels, size, width, groups=1, reduction=0, order="post"):
    return {"kind": kind, "channels": channels, "size": size, "width": width, "groups": groups, "reduction": reduction,
            "order": order}


def settings():
    """Blocks of all kinds; those that ought to be refused among them."""
    yield from (setting_of("basic", channels, 7, channels, 1, reduction, order)
                for channels, reduction, order in itertools.product((8, 24, 33), (0, 4), ("post", "pre")))
    yield from (setting_of("bottleneck", channels, 7, width, 3, reduction, order)
                for channels, width, reduction, order in itertools.product((16, 32), (4, 8, 21), (0, 8), ("post", "pre")))
    yield from (setting_of("resnext", channels, 5, width, groups, reduction, order)
                for channels, width, groups, reduction, order
                in itertools.product((16, 48), (8, 12), (1, 2, 4, 8), (0, 16), ("post", "pre")))
    yield from (setting_of("inverted", channels, 5, times * channels, 1, reduction)
                for channels, times, reduction in itertools.product((6, 16), (1, 3, 6), (0, 4)))
    yield from (setting_of("fire", channels, 5, width) for channels, width in itertools.product((3, 96), (1, 16)))
    yield from (setting_of("separable", channels, 5, channels) for channels in (1, 20))
    yield from (setting_of("shuffle", channels, 5, 1, groups) for channels, groups in itertools.product((24, 30, 48), (1, 2, 3, 4)))
    yield from (setting_of("shuffle_v2", channels, 5, 1) for channels in (2, 15, 116))


def test_blocks_cost_what_the_table_says(node):
    grid = list(settings())
    wrong = node("block", [["wrongBlock", setting] for setting in grid])
    fitting = [setting for setting, text in zip(grid, wrong, strict=True) if not text]
    assert {setting["kind"] for setting in fitting} == set(KINDS)
    results = node("block", [["blockLayers", setting] for setting in fitting])
    for setting, layers in zip(fitting, results, strict=True):
        for make in blocks_of(setting):
            table, shape = costs(make, setting["channels"], setting["size"])
            working = [(layer["params"], layer["macs"]) for layer in layers if layer["macs"]]
            assert working == layers_of(table, setting["order"]), setting
            assert sum(params for params, _ in working) == table.total.params
            assert sum(macs for _, macs in working) == table.total.macs
            assert layers[-1]["to"] == shape[0]


def test_blocks_that_do_not_fit_are_refused_by_the_package_too(node):
    grid = list(settings())
    refused = 0
    for setting, text in zip(grid, node("block", [["wrongBlock", setting] for setting in grid]), strict=True):
        kind, channels, size, width, groups, reduction, order = setting.values()
        if kind == "resnext" and width % groups or kind == "inverted" and reduction and width % reduction:
            assert text  # the package takes the quotient, which is no whole number
            continue
        if text:
            refused += 1
            with pytest.raises(ValueError):
                blocks_of(setting)[0]()
    assert refused > 5


def test_own_widths_are_the_same_in_both_languages(node):
    grid = [(kind, channels, groups) for kind in KINDS for channels in range(1, 300, 7) for groups in (1, 2, 3, 32)]
    assert node("block", [["ownWidth", KINDS, *row] for row in grid]) == [own_width(*row) for row in grid]


def test_blocks_of_papers(node):
    blocks = dict(zip(KINDS, node("block", [["paperBlock", KINDS, kind, 256, 56] for kind in KINDS])))
    assert blocks["bottleneck"]["width"] == 64
    assert (blocks["resnext"]["width"], blocks["resnext"]["groups"]) == (128, 32)  # 32x4d
    assert blocks["inverted"]["width"] == 6 * 256
    assert blocks["fire"]["width"] == 32  # Fire 4: 32 squeeze, 128 + 128 expand
    odd, = node("block", [["paperBlock", KINDS, "resnext", 96, 56]])
    assert (odd["width"], odd["groups"]) == (48, 16)


def macs_of(setting):
    table, _ = costs(blocks_of(setting)[0], setting["channels"], setting["size"])
    return table.total.macs


def test_groups_at_equal_cost_are_those_of_the_resnext_paper(node):
    """Table 2 of Xie et al. (2017): cardinality and width of a branch at about the same complexity."""
    bottleneck = macs_of(setting_of("bottleneck", 256, 56, 64))
    rows, = node("block", [["equalGroups", 256, 56, bottleneck]])
    found = {row["groups"]: row["width"] // row["groups"] for row in rows}
    assert {groups: found[groups] for groups in (1, 2, 4, 8, 32)} == {1: 64, 2: 40, 4: 24, 8: 14, 32: 4}
    for row in rows:
        step = row["groups"]
        error = abs(macs_of(setting_of(**row)) - bottleneck)
        for width in (row["width"] - step, row["width"] + step):
            assert width < 1 or error <= abs(macs_of(setting_of(**{**row, "width": width})) - bottleneck)


@pytest.mark.parametrize("channels", [16, 100, 256])
def test_equal_cost_is_as_equal_as_can_be(node, channels):
    target = macs_of(setting_of("bottleneck", channels, 14, own_width("bottleneck", channels, 1)))
    found = node("block", [["equalCost", KINDS, kind, 14, target, LIMITS["channels"][1]] for kind in KINDS])
    assert not any(node("block", [["wrongBlock", setting] for setting in found]))
    for setting in found:
        kind, groups = setting["kind"], setting["groups"]
        error = abs(macs_of(setting_of(**setting)) - target)
        step = {"bottleneck": 4, "resnext": 2, "fire": 8, "shuffle": 16, "shuffle_v2": 2}.get(kind, 1)
        for count in (setting["channels"] - step, setting["channels"] + step):
            width = setting["width"] if kind == "resnext" else own_width(kind, count, groups)
            if count > 0:
                assert error <= abs(macs_of(setting_of(**{**setting, "channels": count, "width": width})) - target)
    same = next(setting for setting in found if setting["kind"] == "bottleneck")
    assert same["channels"] == channels


# --- arguments and traits ---


WRONG = {
    "unknown module": (lambda: InceptionDesigner("6a"), "row='6a'.*'example', '3a'"),
    "five channel counts": (lambda: InceptionDesigner((1, 2, 3, 4, 5)), r"row=\(1, 2, 3, 4, 5\).*six channel counts: conv1x1"),
    "no row": (lambda: InceptionDesigner(3), "row=3"),
    "no channels": (lambda: InceptionDesigner((64, 0, 128, 16, 32, 32)), "reduce3x3=0"),
    "map of nothing": (lambda: InceptionDesigner(size=0), "size=0"),
    "input channels": (lambda: InceptionDesigner(in_channels=2.5), "in_channels=2.5"),
    "unknown kind": (lambda: BlockDesigner("dense"), "kind='dense'.*'bottleneck'"),
    "channels": (lambda: BlockDesigner(channels=0), "channels=0"),
    "width": (lambda: BlockDesigner(width=-3), "width=-3"),
    "groups": (lambda: BlockDesigner("resnext", groups=0), "groups=0"),
    "reduction": (lambda: BlockDesigner(reduction=True), "reduction=True"),
    "order": (lambda: BlockDesigner(order="both"), "order='both'.*'post', 'pre'"),
    "compare": (lambda: BlockDesigner(compare="time"), "compare='time'.*'cost'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_traits_are_named():
    with pytest.raises((ValueError, traitlets.TraitError), match="conv5x5=0"):
        InceptionDesigner().conv5x5 = 0
    with pytest.raises((ValueError, traitlets.TraitError), match="kind='vgg'"):
        BlockDesigner().kind = "vgg"


def test_arguments_become_traits():
    designer = InceptionDesigner((64, 96, 128, 16, 32, 32), in_channels=192)
    assert {name: getattr(designer, name) for name in PRESETS["3a"]} == PRESETS["3a"]
    assert {name: getattr(InceptionDesigner("5b", size=8), name) for name in FIELDS} == TABLE["5b"]._asdict()
    assert BlockDesigner("resnext").width == 128 and BlockDesigner("inverted", channels=24).width == 144
    assert BlockDesigner("resnext", groups=8, channels=100).width == 48
    seen = []
    designer.observe(lambda change: seen.append(change.new), "conv3x3")
    designer.set_state({"conv3x3": 130})  # what a view's message does
    assert designer.conv3x3 == 130 and seen == [130]


# --- in a browser ---


def inception_figures(page, measure, form):
    """Figures of a column of the table, top to bottom, without the layers that the form does not have."""
    nth = {("macs", "naive"): 2, ("macs", "reduced"): 3, ("params", "naive"): 4, ("params", "reduced"): 5}[measure, form]
    return integers(page.locator(f".cx-inception tbody td:nth-child({nth}) .cx-full").all_inner_texts())


def test_inception_designer_by_keyboard_and_mouse(show):
    page = show(InceptionDesigner())

    def check(in_channels, size, *row):
        row = InceptionRow(*row)
        setting = {"in_channels": in_channels, "size": size, **row._asdict()}
        for form, make in inception_modules(setting).items():
            table, shape = costs(make, in_channels, size)
            rows = [one for one in table if one.kind in ("Conv2d", "MaxPool2d")]
            for measure in ("params", "macs"):
                assert inception_figures(page, measure, form) == [getattr(one, measure) for one in rows]
            total = integers(page.locator(f".cx-inception tfoot [data-measure=macs]:nth-child({2 if form == 'naive' else 3}) "
                                          ".cx-full").all_inner_texts())
            assert total == [table.total.macs]
            assert f"= {shape[0]:,} channels" in page.locator(".cx-picture").nth(int(form == "reduced")).inner_text()

    example = (256, 28, 128, 64, 192, 64, 96, 64)
    check(*example)
    page.get_by_role("slider", name="3\u00d73", exact=True).focus()
    page.keyboard.press("ArrowRight")
    check(256, 28, 128, 64, 193, 64, 96, 64)
    assert page.get_by_label("Module", exact=True).input_value() == ""
    type_into(page, "1\u00d71 before 5\u00d75", 16)
    type_into(page, "Height and width", 14)
    check(256, 14, 128, 64, 193, 16, 96, 64)
    page.get_by_label("Module", exact=True).select_option("4a")
    check(480, 14, *TABLE["4a"])
    assert "192 + 208 + 48 + 64 = 512" in page.locator(".cx-picture").nth(1).inner_text()
    page.get_by_role("button", name="Back to the example").press("Enter")
    check(*example)
    assert "3.15 times fewer multiply-adds" in page.get_by_role("status").inner_text()
    assert page.get_by_label("Module", exact=True).input_value() == "example"


def test_block_designer_by_keyboard_and_mouse(show):
    page = show(BlockDesigner())

    def check(*setting):
        setting = setting_of(*setting)
        table, _ = costs(blocks_of(setting)[0], setting["channels"], setting["size"])
        for place, (measure, column) in enumerate((("params", 0), ("macs", 1))):
            figures = page.locator(f".cx-block-layers tbody [data-measure={measure}] .cx-full").all_inner_texts()
            assert integers(figures) == [row[column] for row in layers_of(table, setting["order"])]
            assert integers(page.locator(f".cx-block-layers tfoot [data-measure={measure}] .cx-full").all_inner_texts()) == \
                [getattr(table.total, measure)]

    check("bottleneck", 256, 56, 64)
    page.get_by_role("slider", name="Middle width").focus()
    page.keyboard.press("ArrowRight")
    check("bottleneck", 256, 56, 65)
    page.get_by_role("button", name="Back to the example").click()
    type_into(page, "Channels", 128)  # the width follows as long as it has the paper's proportion
    check("bottleneck", 128, 56, 32)
    page.get_by_label("Squeeze-and-excitation").check()
    check("bottleneck", 128, 56, 32, 1, 16)
    type_into(page, "Reduction r", 8)
    page.get_by_label("before", exact=True).check()
    check("bottleneck", 128, 56, 32, 1, 8, "pre")
    assert "norm, ReLU, 3\u00d73" in page.locator(".cx-block-layers").inner_text()
    type_into(page, "Reduction r", 7)
    assert "7 does not divide the 128 channels" in page.get_by_role("status").inner_text()
    assert page.locator(".cx-block-layers").count() == 0
    page.get_by_role("button", name="Back to the example").click()

    page.get_by_label("Block", exact=True).select_option("inverted")
    check("inverted", 256, 56, 1536)
    type_into(page, "Channels", 24)
    type_into(page, "Expansion t", 4)
    check("inverted", 24, 56, 96)
    page.get_by_label("Block", exact=True).select_option("resnext")
    type_into(page, "Channels", 256)
    check("resnext", 256, 56, 128, 4)  # at 24 channels, 4 is the most groups that divide the middle

    page.get_by_label("equal width").focus()
    page.keyboard.press("ArrowRight")
    rows = page.locator(".cx-others tbody tr")
    assert rows.count() == 1 + len(KINDS)
    target = macs_of(setting_of("resnext", 256, 56, 128, 4))
    figures = integers(rows.locator("[data-measure=macs] .cx-full").all_inner_texts())
    assert figures[0] == target
    assert all(abs(macs - target) < 0.06 * target for macs in figures), "equal cost"
    page.get_by_role("button", name="Design Basic").press("Enter")
    channels = int(page.get_by_label("Channels", exact=True).and_(page.locator("input[type=number]")).input_value())
    check("basic", channels, 56, channels)
    page.get_by_role("button", name="Back to the example").click()
    page.get_by_label("more groups").check()
    assert "64\u00a0\u00d7\u00a02" in rows.last.inner_text()
    page.get_by_role("button", name="Design ResNeXt, 8 groups").click()
    check("resnext", 256, 56, 8 * 14, 8)
