"""Drawings by geometry: no overlap, no clipped text, no line across a box; the same bytes every time; words for those
who hear."""

import copy
import functools
import re
from collections import Counter
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch
from torch import nn

from cnnlib import create_model, list_models, plots
from cnnlib.analysis import drawing
from cnnlib.analysis.drawing import layout, shapes
from cnnlib.analysis.diagram import diagram
from cnnlib.analysis.drawing import differences, draw, scene
from cnnlib.analysis.drawing.shapes import NARROW, WIDE, Item, Scene, svg_of, text_width, wrap
from cnnlib.analysis.drawing.strips import ladder_of
from cnnlib.models.googlenet import TABLE, Inception, NaiveInception
from cnnlib.registry import find_variant
from drawing_geometry import connections, faults_of, texts_of, wrong_connections
from libraries import timm_or_skip
from test_diagram import FEW, Residual, SmallUNet, drawn, others, with_two
from zoo import on_meta

TORCHVISION = [
    "alexnet", "vgg11", "vgg16_bn", "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "googlenet",
    "squeezenet1_0",
    "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s",
    "convnext_tiny", "swin_t", "swin_v2_t", "vit_b_16", "maxvit_t",
]
TIMM = """resnet50 resnet50d resnet101 seresnet50 ecaresnet50d resnext50_32x4d res2net50_26w_4s resnest50d skresnet18
resnetv2_50
    resnetaa50 convnext_tiny convnextv2_tiny efficientnet_b0 efficientnet_b3 tf_efficientnetv2_s efficientnet_lite0
    mixnet_s mnasnet_100 mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium
    fbnetc_100 spnasnet_100 lcnet_050 ghostnet_100 ghostnetv2_100 hardcorenas_a hrnet_w18 nasnetalarge pnasnet5large
    inception_v3 inception_v4 inception_resnet_v2 xception41 dpn68 densenet121 densenetblur121d dla34 dla60 cspresnet50
    cspdarknet53 darknet53 selecsls42b vovnet39a ese_vovnet19b_dw repvgg_a0 mobileone_s0 fastvit_t8 regnetx_004
    regnety_004 regnetz_b16 rexnet_100 tinynet_a vgg16_bn dm_nfnet_f0 nf_resnet50 eca_nfnet_l0 gernet_s botnet26t_256
    halonet26t lambda_resnet26t bat_resnext26ts poolformer_s12 caformer_s18 convformer_s18 mixer_s16_224 resmlp_12_224
    gmixer_24_224 vit_tiny_patch16_224 cait_xxs24_224 swin_tiny_patch4_window7_224 levit_128 coat_tiny coatnet_0_rw_224
    mobilevit_xs edgenext_xx_small efficientformer_l1 pit_ti_224 pvt_v2_b0 twins_pcpvt_small visformer_tiny
    inception_next_tiny repghostnet_050 starnet_s1 rdnet_tiny hgnet_tiny efficientvit_b0 focalnet_tiny_srf
    xcit_nano_12_p16_224 davit_tiny""".split()


def scenes_of(found, most_blocks=1000):
    """(what, scene) of a diagram at all three zooms, wide and narrow, each once."""
    structure, found = functools.cache(found.structure), copy.copy(found)
    found.structure = structure  # is asked for by the drawing, wide and narrow, and by what looks at its lines
    works = [("", None), ("", "stage"), ("", "block")]
    works += [(part.name, zoom) for part in found.parts if part.parent == 0 and not part.is_layer
              for zoom in ("stage", "block")]
    blocks = [(part.name, None) for part in found.parts if not part.is_layer and part.parent not in (None, 0)]
    seen = set()
    for name, zoom in works + blocks[:most_blocks]:
        for narrow in (False, True):
            one = scene(found, name, zoom, narrow=narrow)
            text = svg_of(one, sheet=False)
            if text not in seen:
                seen.add(text)
                yield f"{name or 'whole'}, {zoom}, narrow={narrow}", one, wrong_connections(found, name, zoom, one)


def all_faults(found, most_blocks=1000):
    """Of drawings at all zooms: what overlaps or is cut, and lines that are not as the layers read each other."""
    return {what: faults for what, one, wrong in scenes_of(found, most_blocks) if (faults := faults_of(one) + wrong)}


@pytest.mark.parametrize("name", FEW)
def test_nothing_overlaps_and_no_text_is_cut(name):
    assert all_faults(drawn(name), 12) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_nothing_overlaps_in_any_network(name):
    assert all_faults(drawn(name)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_nothing_overlaps_in_those_of_torchvision(name):
    assert all_faults(diagram(others(name), (3, 224, 224), title=name), 60) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_nothing_overlaps_in_those_of_timm(name):
    timm = timm_or_skip()
    with torch.device("meta"):
        network = timm.create_model(name)
    assert all_faults(diagram(network, network.default_cfg["input_size"], title=name), 60) == {}


def test_the_geometry_test_sees_faults():
    good = scene(drawn("resnet20"), "stages.0", "block")
    assert faults_of(good) == []

    def with_item(*shapes, part=10_000):
        return replace(good, items=[*good.items, Item(part, "conv", [list(shape) for shape in shapes])])

    box = next(shape for item in good.items for shape in item.shapes if shape[0] == "r" and shape[1] == "box")
    text = next(texts_of(good))
    _, _, x, y, width, height, _ = box
    wrong = {
        "overlaps": with_item(["r", "box", x + 5, y + 5, width, height, 3]),
        "cut off": with_item(["t", "main", 1, 20, "middle", "a long label"]),
        "overlaps text": with_item(["t", "main", text[0] + 5, text[1] + 8, "start", "words"]),
        "sticks out": with_item(["r", "box", good.width - 60, 2, 30, 10, 2],
                                ["t", "small", good.width - 45, 7, "middle", "3x3 conv"]),
        "runs over": replace(good, items=[*good.items, Item(None, "line",
                                                            [["l", "line", [x - 20, y + 8, x + width + 20, y + 8]]])]),
        "ends in nothing": replace(good, items=[*good.items, Item(None, "line", [["l", "line", [30, 60, 30, 70]]])]),
        "leaves": replace(good, items=[*good.items, Item(None, "line", [["l", "line", [5, 5, -90, 5]]])]),
    }
    for word, one in wrong.items():
        assert any(word in fault for fault in faults_of(one)), word
    assert any("overlaps" in fault for fault in faults_of(Scene(200, 100, [
        Item(1, "conv", [["p", "face", [0, 0, 40, 0, 40, 40, 0, 40]]]),
        Item(2, "conv", [["p", "face", [30, 0, 60, 0, 60, 40, 30, 40]]]),
    ], "", "")))


def test_text_is_measured_and_broken():
    assert text_width("") == 0 and text_width("mm") == 2 * text_width("m") > 2 * text_width("i")
    assert text_width("conv", "title") > text_width("conv", "main") > text_width("conv", "small")
    lines = wrap("3x3 depthwise conv, 64, /2", 74)
    assert " ".join(lines) == "3x3 depthwise conv, 64, /2" and len(lines) > 1
    assert all(text_width(line) <= 74 or " " not in line for line in lines)


def test_text_is_measured_at_least_as_wide_as_a_browser_draws_it():
    ft2font = pytest.importorskip("matplotlib.ft2font")
    from matplotlib import font_manager

    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(100, 72)
    for character in map(chr, range(32, 127)):
        advance = font.load_char(ord(character), flags=2).linearHoriAdvance / 65536
        assert text_width(character) >= 0.12 * (advance - 0.51)


@pytest.mark.parametrize("name", FEW)
def test_networks_fit_wide_and_narrow_pages(name):
    found = drawn(name)
    assert scene(found).width <= WIDE + 2 * drawing.MARGIN
    assert scene(found, narrow=True).width <= NARROW + 2 * drawing.MARGIN


def test_wide_blocks_break_their_labels_before_they_outgrow_the_page():
    found = drawn("nasnet_mobile")
    for zoom in ("stage", "block"):
        assert scene(found, "stages.0.1", zoom).width <= WIDE + 2 * drawing.MARGIN
    plain = scene(drawn("resnet50"), "stages.0.0", "block")
    assert any(text[4] == "1\u00d71 conv, 64" for text in texts_of(plain)), "what fits keeps its lines whole"


def test_the_largest_is_quick():
    def seconds_of(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    network = on_meta("resnet1202")
    yardstick = seconds_of(lambda: sum(i * i for i in range(2_000_000)))  # this machine, at this moment
    assert seconds_of(lambda: draw(diagram(network, (3, 32, 32)))) < 150 * yardstick


class Nested(nn.Module):
    """Blocks in blocks, each with a shortcut."""

    def __init__(self, depth):
        super().__init__()
        self.inner = Nested(depth - 1) if depth else nn.Conv2d(4, 4, 3, padding=1)
        self.outer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.outer(self.inner(x))


@pytest.mark.parametrize("narrow", [False, True])
def test_branches_in_branches_are_placed_once(narrow, monkeypatch):
    """Beside each other and below each other are tried at every depth: not for each of these what is inside anew."""
    found, placed = diagram(Nested(20), (4, 8, 8)), []
    monkeypatch.setattr(layout, "place_unit", lambda *args, place=layout.place_unit, **options: placed.append(1) or place(*args, **options))
    one = scene(found, zoom="block", narrow=narrow)
    assert len(placed) < 4000 and sum(item.kind == "conv" for item in one.items) == 21, "the innermost two as a repeat"


# --- SVG ---


def test_names_are_written_as_text():
    """Names with characters of markup, from all alphabets, and control characters, for which XML has no place."""
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            for i, name in enumerate(("<script>alert(1)</script>&\"'", "\u5c42 \u4e00", "a\x01\x0b")):
                self.add_module(name, nn.Conv2d(4, 4, 1))

        def forward(self, x):
            first, second, third = self.children()
            return first(x) + second(third(x))

    Odd.__name__ = "</text><script>\x02 & \u0421\u0435\u0442\u044c"
    found = diagram(nn.Sequential(nn.Conv2d(3, 4, 1), Odd(), Odd(), nn.Conv2d(4, 4, 3)), (3, 8, 8), title="<b>\x03&")
    for picture in (draw(found), draw(found, zoom="block"), draw(found, zoom="stage")):
        tree = tree_of(picture.svg)
        assert {element.tag.removeprefix(SPACE) for element in tree.iter()} <= {
            "svg", "title", "desc", "style", "g", "path", "rect", "circle", "polygon", "text"}
        assert "<script" not in picture._repr_html_() and tree.find(SPACE + "title").text == "<b>\ufffd&"
    assert tree_of(drawing.small_picture(found)).find(SPACE + "title").text == "<b>\ufffd&"
    assert any("\u0421\u0435\u0442\u044c" in text[4] for text in texts_of(scene(found, zoom="stage")))


def tree_of(text):
    return ElementTree.fromstring(text)


SPACE = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", FEW)
def test_svg_is_well_formed_and_says_what_it_shows(name):
    tree = tree_of(draw(drawn(name)).svg)
    assert tree.get("role") == "img"
    title, words = (tree.find(SPACE + tag) for tag in ("title", "desc"))
    assert tree.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    assert title.text == name and words.text.startswith("From 3\u00d7")
    assert re.search("conv|fully connected", words.text)
    labels = [text.text for text in tree.iter(SPACE + "text")]
    assert labels[0] == "input", "what is drawn is read in forward order"


def test_the_same_network_gives_the_same_bytes():
    first, again = (draw(diagram(Residual(), (3, 16, 16), title="r"))._repr_html_() for _ in range(2))
    assert first == again and " at 0x" not in first and repr(draw(drawn("resnet20"))) == repr(draw(drawn.__wrapped__("resnet20")))


def test_two_drawings_on_a_page_do_not_share_names():
    one, other = draw(drawn("resnet20"))._repr_html_(), draw(drawn("resnet20"), "stages.0")._repr_html_()
    ids = [re.findall(r' id="([^"]+)"', text) for text in (one, other)]
    assert not set(ids[0]) & set(ids[1]) and all(len(set(found)) == len(found) for found in ids)


def test_colours_have_one_meaning_and_both_themes():
    sheet = shapes.style_sheet()
    for kind, (light, dark) in shapes.LIGHT_DARK.items():
        assert f".k-{kind} :is(.box,.face,.side,.top){{fill:{light};fill:light-dark({light},{dark})}}" in sheet
    assert len({light for light, _ in shapes.LIGHT_DARK.values()}) == len(shapes.LIGHT_DARK)
    assert "[data-theme=dark] .nd" in sheet and "@media print" in sheet
    for light, dark in shapes.LIGHT_DARK.values():
        assert contrast(light, shapes.INK[0]) >= 7 and contrast(dark, shapes.INK[1]) >= 4.5
    text = draw(drawn("seresnet20"), "stages.0.0").svg
    for label, kind in (("3\u00d73 conv, 16", "conv"), ("BN", "norm"), ("ReLU", "act"),
                        ("global average pool", "pool")):
        assert re.search(rf'<g class="k-{kind}">(?:(?!</g>).)*>{label}<', text), label
    assert re.search(r'<g class="k-fc">', draw(drawn("alexnet_227")).svg)


def contrast(*colours):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


def test_notebooks_get_both_layouts_and_files_stand_alone(tmp_path):
    picture = draw(drawn("resnet50"))
    page = picture._repr_html_()
    assert page.count("<svg ") == 2 and "@container(max-width:" in page
    assert draw(drawn("resnet20"), "stages.0.0")._repr_html_().count("<svg ") == 1, "narrow enough for every page"
    path = picture.save(tmp_path / "resnet50.svg")
    tree = tree_of(path.read_text(encoding="utf-8"))
    assert tree.find(SPACE + "style") is not None
    assert path.read_bytes() == picture.save(tmp_path / "again.svg").read_bytes()
    assert plots.draw is draw


def solids(one, style="face"):
    return {item.part: shape[2] for item in one.items for shape in item.shapes if shape[0] == "p" and shape[1] == style}


def test_height_shows_rows_depth_columns_and_thickness_channels():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, stride=(2, 1)), nn.Conv2d(4, 4, 1, stride=(1, 2)),
                            nn.Conv2d(4, 64, 1))
    one = scene(diagram(network, (3, 64, 64)))
    faces, sides = list(solids(one).values())[1:], list(solids(one, "side").values())[1:]
    heights = [points[7] - points[1] for points in faces]
    thick = [points[2] - points[0] for points in faces]
    depths = [points[2] - points[0] for points in sides]
    assert heights[1] < heights[0] and heights[2] == pytest.approx(heights[1])
    assert depths[1] == pytest.approx(depths[0]) and depths[2] < depths[1]
    assert thick[0] == pytest.approx(thick[2]) and thick[3] > 1.5 * thick[2]
    assert heights[1] / heights[0] == pytest.approx(0.5**0.55) and thick[3] / thick[2] == pytest.approx(16**0.4,
                                                                                                        rel=0.05)


def test_few_groups_are_drawn_as_towers():
    """Two towers where convolutions have two groups; each is read by itself, and both by a convolution in one group."""
    class Towers(nn.Module):
        def __init__(self, *groups):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), *(
                nn.Conv2d(8, 8, 3, padding=1, groups=number) for number in groups))

        def forward(self, x):
            return self.layers(x)

    def faces(*groups, narrow=False):
        one = scene(diagram(Towers(*groups), (3, 32, 32)), narrow=narrow)
        assert faults_of(one) == []
        lines = sum(shape[:2] == ["l", "line"] for item in one.items for shape in item.shapes)
        return [sum(shape[1] == "face" for shape in item.shapes) for item in one.items
                if any(shape[1] == "face" for shape in item.shapes)], lines

    for narrow in (False, True):
        assert faces(1, narrow=narrow) == ([1, 1, 1, 1], 3)
        assert faces(2, narrow=narrow) == ([1, 2, 2, 2], 2 + 2 + 2), "what a grouped convolution reads is in two parts, too"
        assert faces(2, 1, narrow=narrow) == ([1, 2, 2, 2, 1], 2 + 2 + 2 + 2)
        assert faces(2, 1, 2, narrow=narrow) == ([1, 2, 2, 2, 2, 2], 2 + 2 + 2 + 4 + 2), "from each to each"
        assert faces(8, narrow=narrow) == ([1, 1, 1, 1], 3), "depthwise: no towers"
    for narrow in (False, True):
        assert faults_of(scene(drawn("alexnet_two_tower"), narrow=narrow)) == []


def test_numbers_can_be_left_out():
    with_numbers, without = (draw(drawn("googlenet"), "stages.0.0", numbers=numbers).svg for numbers in (True, False))
    texts = [[text.text for text in tree_of(svg).iter(SPACE + "text")] for svg in (with_numbers, without)]
    assert "3\u00d73 conv, 128" in texts[0] and "256\u00d728\u00d728" in texts[0]
    assert "3\u00d73 conv" in texts[1] and not any(re.search(r"\d{2,}", text) for text in texts[1])
    strided = draw(drawn("resnet50"), "stages.1.0", numbers=False).svg
    assert ">3\u00d73 conv, /2<" in strided


def test_a_part_can_be_highlighted():
    found = drawn("resnet50")
    one = scene(found, "stages.1.0", highlight=["stages.1.0.shortcut"])
    marks = {found.parts[item.part].name.split(".")[3]: item.mark for item in one.items if item.part is not None
             and found.parts[item.part].name.count(".") > 2}
    assert marks["shortcut"] == "on" and marks["branch"] == "off"
    assert 'class="k-conv on"' in svg_of(one) and 'class="k-conv off"' in svg_of(one)
    with pytest.raises(ValueError, match="stages.9"):
        scene(found, highlight=["stages.9"])


def test_two_networks_side_by_side_mark_what_differs():
    one, other = (diagram(Residual(**options), (3, 16, 16), title=title) for options,
                  title in (({}, "plain"), ({"join": "cat"}, "dense")))
    new, missing = differences(one, other, "", "block")
    assert [one.parts[id].kind for id in sorted(new)] == ["add",
                                                          "pool"], "pooling has other channels behind another join"
    assert [other.parts[id].kind for id in sorted(missing)] == ["concatenate", "pool"]
    picture = draw(one, zoom="block", beside=other)
    assert "plain beside dense" in picture.svg and 'class="k-join new"' in picture.svg
    assert differences(one, one, "", "block") == (frozenset(), frozenset())
    deep = diagram(Residual(depth=3), (3, 16, 16))
    new, missing = differences(one, deep, "", "block")
    assert len(missing) > len(new) and any(deep.parts[id].name.startswith("more") for id in missing)
    strided = diagram(Residual(stride=2), (3, 16, 16))
    assert {"conv"} <= {strided.parts[id].kind for id in differences(one, strided, "", "block")[1]}
    assert faults_of(picture.wide) == []


def test_a_changed_network_changes_its_drawing():
    base = draw(diagram(Residual(), (3, 16, 16)), zoom="block").svg
    for options in ({"shortcut": False}, {"join": "cat"}, {"stride": 2}, {"depth": 3}):
        assert draw(diagram(Residual(**options), (3, 16, 16)), zoom="block").svg != base


def ends_of(one):
    """Where lines begin and end, to whole pixels."""
    return {(round(shape[2][i]), round(shape[2][i + 1])) for item in one.items for shape in item.shapes
            if shape[0] in "lb" and shape[1] == "line" for i in (0, -2)}


def test_a_shortcut_ends_at_the_side_of_the_circle():
    one = scene(diagram(Residual(), (3, 16, 16)), zoom="block")
    circle = next(shape for item in one.items for shape in item.shapes if shape[0] == "c")
    _, _, x, y, radius = circle
    ends = ends_of(one)
    assert any(abs(a - x - radius) <= 1 and abs(b - y) <= 1 for a, b in ends), "from the right"
    assert any(abs(a - x) <= 1 and abs(b - y + radius) <= 1 for a, b in ends), "from above"


def test_boxes_of_a_series_are_joined_by_arrows():
    one = scene(diagram(Residual(shortcut=False), (3, 16, 16)), zoom="block")
    tips = [shape[2] for item in one.items for shape in item.shapes if shape[0] == "p" and shape[1] == "tip"]
    tops = {(round(shape[2] + shape[4] / 2), round(shape[3])) for item in one.items for shape in item.shapes
            if shape[0] == "r" and shape[1] == "box"}
    reached = {(round(points[0]), round(points[1])) for points in tips}
    assert sum(top in reached for top in tops) == 5, "3 convolutions, pooling and the last layer"
    assert all(points[3] < points[1] and points[5] < points[1] for points in tips), "arrows point down"


def input_boxes(one):
    """Text -> (centre, top, bottom) of the boxes of inputs."""
    found = {}
    for item in one.items:
        if item.kind in ("input", "output"):
            box = next(shape for shape in item.shapes if shape[0] == "r")
            text = " ".join(shape[5] for shape in item.shapes if shape[0] == "t")
            found[text] = (round(box[2] + box[4] / 2), round(box[3]), round(box[3] + box[5]))
    return found


def test_what_differs_is_looked_for_branch_by_branch():
    """A reduction as wide as another branch's filters is not taken for them: GoogLeNet's second module."""
    with torch.device("meta"):
        naive, module = NaiveInception(256, 128, 192, 96), Inception(256, TABLE["3b"])
    before, after = (diagram(one, (256, 28, 28)) for one in (naive, module))
    new, missing = differences(before, after, "", "block")
    assert {before.parts[id].kind for id in new} == {"concatenate"}
    marked = [after.parts[id].name for id in missing if after.parts[id].kind == "conv"]
    assert sorted(marked) == ["branch2.0.conv", "branch3.0.conv", "branch4.1.conv"]


@pytest.mark.parametrize("zoom", ["block", "stage"])
def test_different_inputs_stand_at_the_top_without_a_line_between_them(zoom):
    one = scene(with_two(), "block", zoom)
    assert faults_of(one) == []
    boxes = input_boxes(one)
    assert set(boxes) == {"from stem 4\u00d78\u00d78", "from body 4\u00d78\u00d78"}
    (x, top, bottom), (to_x, to_top, _) = boxes.values()
    assert top == to_top == drawing.MARGIN and x != to_x
    starts = {end for end in ends_of(one) if end[1] <= bottom + 1}
    assert starts == {(x, bottom), (to_x, bottom)}, "a line out of each, and none into them"
    assert "From stem (4\u00d78\u00d78) and from body (4\u00d78\u00d78) to 4\u00d78\u00d78" in one.words
    bare = scene(with_two(), "block", zoom, numbers=False)
    assert set(input_boxes(bare)) == {"from stem", "from body"} and faults_of(bare) == []


def test_inputs_and_outputs_of_a_graph():
    one = scene(drawn("hrnet_w18"), "stages.2.2")
    boxes = input_boxes(one)
    given = [box for text, box in boxes.items() if text.startswith("from")]
    results = [box for text, box in boxes.items() if text.startswith("to")]
    assert len(given) == len(results) == 3 and faults_of(one) == []
    assert {top for _, top, _ in given} == {drawing.MARGIN}
    assert {bottom for _, _, bottom in results} == {round(one.height - drawing.MARGIN)}
    ends = ends_of(one)
    assert all((x, bottom) in ends and not any(y < bottom - 1 for a, y in ends if a == x) for x, _, bottom in given)
    assert all(any(a == x and abs(y - top) <= 1 for a, y in ends) for x, top, _ in results)


def test_outputs_stand_in_their_order():
    boxes = input_boxes(scene(drawn("hrnet_w18"), "stages.2"))
    outs = sorted((x, text) for text, (x, _, _) in boxes.items() if text.startswith("to"))
    assert [text.split()[-1] for _, text in outs] == ["18\u00d756\u00d756", "36\u00d728\u00d728", "72\u00d714\u00d714"]


def test_inputs_stand_at_the_top_and_outputs_at_the_bottom_wherever_they_are_used():
    from cnnlib.segmentation import FPN

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i in range(4))
            self.decoder = FPN([4] * 4, 4)

        def forward(self, x):
            maps = []
            for conv in self.convs:
                x = conv(x)
                maps.append(x)
            return sum(found.mean((2, 3)) for found in self.decoder(maps))

    one = scene(diagram(Pyramid(), (3, 64, 64)), "decoder")
    boxes = input_boxes(one)
    given, results = ([box for text, box in boxes.items() if text.startswith(word)] for word in ("from ", "to "))
    assert len(given) == len(results) == 4 and faults_of(one) == []
    assert {top for _, top, _ in given} == {drawing.MARGIN}
    assert {bottom for _, _, bottom in results} == {round(one.height - drawing.MARGIN)}


def test_uses_of_two_inputs_that_are_swapped_change_the_drawing():
    """The same layers and inputs, read the other way round; and one input read twice."""
    pictures = {svg_of(scene(with_two(**options), "block"), sheet=False) for options in (
        {}, {"swapped": True}, {"one": True}, {"results": 2}, {"image": True})}
    assert len(pictures) == 5
    one, other = with_two(), with_two(swapped=True)
    new, missing = differences(one, other, "block", "block")
    assert new and missing
    before, size = drawn("nasnet_mobile"), find_variant("nasnet_mobile").input_size
    with torch.device("meta"):
        network = create_model("nasnet_mobile").eval()
    cell, found = network.stages[0][2], svg_of(scene(before, "stages.0.2"), sheet=False)
    forward = cell.forward
    cell.forward = lambda *maps, **options: forward(*(maps[::-1] if len(maps) > 1 else [maps[0][::-1]]), **options)
    after = diagram(network, size, title="nasnet_mobile")
    assert svg_of(scene(after, "stages.0.2"), sheet=False) != found
    assert svg_of(scene(after, "stages.0.1"), sheet=False) == svg_of(scene(before, "stages.0.1"), sheet=False)


# --- networks that go down and up again ---


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("options, size", [({}, 64), ({"padding": 0}, 188), ({"skips": (0, 2)}, 64)])
def test_down_on_the_left_and_up_on_the_right(narrow, options, size):
    found = diagram(SmallUNet(**options), (3, size, size), title="u")
    one = scene(found, narrow=narrow)
    assert faults_of(one) == [] and one.width <= (NARROW if narrow else WIDE) + 2 * drawing.MARGIN
    faces = solids(one)
    places = [((points[0] + points[2]) / 2, (points[1] + points[5]) / 2) for points in faces.values()]
    assert len(places) == 9, "the input and eight parts"
    left, right = places[:5], places[5:]
    assert max(x for x, _ in left) < min(x for x, _ in right)
    assert [y for _, y in left] == sorted(y for _, y in left)
    assert [y for _, y in right] == sorted((y for _, y in right), reverse=True)
    across = [shape[2] for item in one.items for shape in item.shapes if shape[0] == "l" and shape[1] == "line"
              and len(shape[2]) == 4 and shape[2][1] == shape[2][3]]
    assert len(across) == len(options.get("skips", (0, 1, 2))) and all(
        x < to_x and to_x - x < right[0][0] - left[0][0] for x, _, to_x, _ in across)
    assert len({round(y) for _, y, *_ in across}) == len(across)
    kept = options.get("skips", (0, 1, 2))
    heights = [shape[3] for item in one.items if item.part in faces for shape in item.shapes
               if shape[0] == "t" and shape[5] in {f"up {3 - i}" for i in kept}]
    assert len(heights) == len(kept)


@pytest.mark.parametrize("name, options", [("chain", {"skips": ()}), ("residual", None)])
def test_other_networks_are_no_ladders(name, options):
    network = Residual() if options is None else SmallUNet(**options)
    assert ladder_of(diagram(network, (3, 64, 64))) is None


def test_a_ladder_is_refused_where_maps_cross_or_grow():
    class Odd(SmallUNet):
        def forward(self, x):
            a = self.down[0](x)
            b = self.down[1](nn.functional.max_pool2d(a, 2))
            c = self.down[2](b)
            return self.out(self.conv[0](torch.cat([a, nn.functional.interpolate(c[:, :4], size=a.shape[2:])], 1)) + (
                nn.functional.interpolate(c[:, :4], size=a.shape[2:])))

    assert ladder_of(diagram(Odd(), (3, 32, 32))) is None
    assert faults_of(scene(diagram(Odd(), (3, 32, 32)))) == []


@pytest.mark.parametrize("skips", [(0, 1, 2), (0,)])
def test_a_ladder_is_refused_where_the_way_down_reads_itself(skips):
    class Inner(SmallUNet):
        def __init__(self):
            super().__init__(skips)
            self.down[3] = self.double(24, 32, 1)

        def forward(self, x):
            pool, maps = nn.functional.max_pool2d, []
            for i, stage in enumerate(self.down):
                x = pool(x, 2) if i else x
                maps.append(stage(torch.cat([x, pool(maps[1], 4)], 1) if i == 3 else x))
                x = maps[-1]
            for i in (2, 1, 0):
                x = self.up[i](x)
                x = self.conv[i](torch.cat([maps[i], x], 1) if i in skips else x)
            return self.out(x)

    found = diagram(Inner(), (3, 64, 64))
    assert ladder_of(found) is None and faults_of(scene(found)) == []


def test_the_unet_of_the_book_is_compact():
    from cnnlib.segmentation import UNet

    with torch.device("meta"):
        encoder = create_model("vgg11_cifar_bn", num_classes=10, widths=(16, 32, 64, 128, 128))
        network = UNet(encoder, 11, strides=(1, 2, 4, 8, 16, 32), widths=(16, 16, 32, 64, 128))
    one = scene(diagram(network, (3, 64, 64)))
    assert one.height < 700 and faults_of(one) == []
    texts = [text[4] for text in texts_of(one)]
    assert [text for text in texts if "coder" in text] == [*(f"encoder {i}" for i in range(1, 6)),
                                                         *(f"decoder {i}" for i in range(1, 6))]
    assert sum(text == "upsample \u00d72" for text in texts) == 5, "a block of the decoder is told layer by layer"
    assert not any("\u00d71" == text[-2:] and "upsample" in text for text in texts), "the same size is no upsampling"


def test_concatenations_reach_over_all_branches():
    found = drawn("googlenet")
    one = scene(found, "stages.0.0")
    bar = next(shape for item in one.items for shape in item.shapes if item.kind == "concatenate" and shape[0] == "r")
    last = [shape for item in one.items for shape in item.shapes if item.kind in ("act",) and shape[0] == "r"]
    assert bar[2] <= min(shape[2] for shape in last) + 60 and bar[4] > 3 * 60
    arrows = [shape[2] for item in one.items for shape in item.shapes if shape[0] == "p" and shape[1] == "tip"]
    assert sum(abs(points[1] - bar[3]) < 1 for points in arrows) == 4


class Uneven(nn.Module):
    """No series of branches, and wider on one side, so that its end does not stand below its beginning."""

    def __init__(self, width=7):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.more = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(width))

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        c = self.c(a + b)
        return torch.cat([b, c, *(conv(c) for conv in self.more)], 1)


def reached(one):
    """Places at the top of the last concatenation where lines end."""
    bar = [shape for item in one.items for shape in item.shapes if item.kind == "concatenate" and shape[0] == "r"][-1]
    return {x for x, y in ends_of(one) if abs(y - bar[3]) <= 1 and bar[2] <= x <= bar[2] + bar[4]}


def test_what_follows_a_graph_is_joined_to_it():
    for network, size in ((Uneven(), (4, 8, 8)), (Uneven(1), (4, 8, 8))):
        assert all_faults(diagram(network, size)) == {}
    for cell, branches in (("stages.0.1", 6), ("stages.1.0", 4)):
        for narrow in (False, True):
            one = scene(drawn("nasnet_mobile"), cell, narrow=narrow)
            assert faults_of(one) == [] and len(reached(one)) == branches, "each branch has a place of its own"


# --- one column with wires, on narrow pages ---


WIDE_BLOCKS = [("nasnet_mobile", "stages.0.1"), ("nasnet_mobile", "stages.1.0"), ("hrnet_w18", "stages.2.2"),
               ("inception_v3", "stages.2.1"), ("googlenet", "stages.0.0")]


@pytest.mark.parametrize("name, part", WIDE_BLOCKS)
def test_wide_blocks_fit_a_phone_and_say_the_same(name, part):
    found = drawn(name)
    wide, narrow = (scene(found, part, narrow=narrow) for narrow in (False, True))
    assert narrow.width <= NARROW + 2 * drawing.MARGIN < wide.width
    assert Counter(item.part for item in narrow.items if item.part is not None) == Counter(
        item.part for item in wide.items if item.part is not None)
    assert narrow.words == wide.words and connections(narrow) == connections(wide) and len(connections(wide)) > 4
    assert narrow.stacked == (name != "googlenet"), "four branches stand side by side on a phone, too"


def test_things_in_a_column_stand_on_one_axis_below_each_other():
    one = scene(drawn("nasnet_mobile"), "stages.0.1", narrow=True)
    boxes = [shape[2:6] for item in one.items for shape in item.shapes if shape[0] == "r"]
    middle = one.width / 2
    assert all(abs(x + width / 2 - boxes[0][0] - boxes[0][2] / 2) < 0.1 for x, _, width, _ in boxes if width > 60)
    assert all(y < below_y for (_, y, _, _), (_, below_y, _, _) in zip(boxes, boxes[1:])) and abs(boxes[0][0] + boxes[0][2] / 2 - middle) < 30


def test_connections_that_are_wrong_are_seen():
    """What the tests of geometry rest on: a line that is left out, led elsewhere or added."""
    found = drawn("nasnet_mobile")
    for narrow in (False, True):
        one = scene(found, "stages.0.1", narrow=narrow)
        assert wrong_connections(found, "stages.0.1", None, one) == []
        lines = [i for i, item in enumerate(one.items) if item.kind == "line"]
        seen = sum(bool(wrong_connections(found, "stages.0.1", None, replace(
            one, items=[item for j, item in enumerate(one.items) if j != i]))) for i in lines)
        assert seen >= 0.85 * len(lines), "all but those out of the drawing"
    moved = shapes.moved([one.items[lines[4]]], 12, 0)
    assert wrong_connections(found, "stages.0.1", None, replace(one, items=[
        *one.items[:lines[4]], *moved, *one.items[lines[4] + 1:]]))


def test_wires_take_lanes_that_are_free():
    wires = [layout.Wire(0, [9], False), layout.Wire(1, [3], False), layout.Wire(3, [5, 6], False), layout.Wire(2, [4], False)]
    assert layout.in_lanes(wires) == 3
    assert [wire.lane for wire in wires] == [2, 0, 0, 1]


def test_a_column_is_in_the_order_in_which_things_are_read():
    a, b, join, c, last = range(5)
    edges = [(-1, a), (-1, b), (a, join), (b, join), (join, c), (-1, last), (c, last), (last, -2)]
    assert layout.column_order(edges, ((), ()), {join, last}) == [a, b, join, c, last]


def test_norms_that_several_branches_read_stand_on_their_layer():
    one = scene(drawn("nasnet_mobile"), "stages.0.1")
    boxes = [shape[2:6] for item in one.items if item.kind in ("conv", "norm") for shape in item.shapes if shape[0] == "r"]
    assert len(boxes) == 4
    norms = [shape[2:6] for item in one.items if item.kind == "norm" for shape in item.shapes if shape[0] == "r"]
    assert all(any(abs(y - above[1] - above[3]) < 1 and abs(x - above[0]) < 1 for above in boxes) for x, y, *_ in norms)


def test_an_arrow_points_at_what_is_repeated_and_not_at_its_frame():
    one = scene(drawn("resnet20"), "stages.0")
    frame = next(shape for item in one.items for shape in item.shapes if shape[1] == "repeat")
    tips = [shape[2][1] for item in one.items for shape in item.shapes if shape[0] == "p" and shape[1] == "tip"]
    assert not any(abs(y - frame[3]) < 1 for y in tips) and faults_of(one) == []
    assert sum(frame[3] < y < frame[3] + frame[5] for y in tips) == 1


def test_repeats_say_how_often():
    texts = [text[4] for text in texts_of(scene(drawn("resnet20"), "stages.0"))]
    assert "\u00d7 3" in texts
    grown = [text[4] for text in texts_of(scene(drawn("densenet_cifar"), "stages.0"))]
    assert any(re.fullmatch(r"concatenate, [\d,]+ to [\d,]+", text) for text in grown)


@pytest.mark.parametrize("name, stage, lines", [
    ("googlenet", "stage 1", ["2 \u00d7 Inception, 256 to 480", "3\u00d73 max pool, /2"]),
    ("googlenet", "stage 3", ["2 \u00d7 Inception, 832 to 1,024"]), ("hrnet_w18", "head", ["4 \u00d7 Residual", "global average pool", "fully connected, 1,000"]),
    ("densenet40_k12", "stage 2", ["Transition", "12 \u00d7 (3\u00d73 conv, 12), 172 to 304"]), ("repvgg_a0", "stem", ["3\u00d73 conv, 48, /2"]),
    ("fasternet_t1", "stage 2", ["2\u00d72 conv, 128, /2", "2 \u00d7 FasterBlock"]), ("fasternet_t1", "stage 1", ["FasterBlock"]),
    ("convnext_tiny", "stage 2", ["2\u00d72 conv, 192, /2", "3 \u00d7 ConvNeXtBlock"]),
    ("mobilenet_v2", "stage 7", ["InvertedResidual"]), ("efficientnet_b0", "stage 7", ["MBConv"]),
    ("nasnet_mobile", "stem", ["3\u00d73 conv, 32, /2", "2 \u00d7 Cell, 44 to 88"])])
def test_a_strip_says_what_stands_between_the_blocks(name, stage, lines):
    item = next(text[5] for text in texts_of(scene(drawn(name))) if text[4] == stage)
    told = " ".join(shape[5] for shape in item.shapes if shape[0] == "t")
    words = " ".join([stage, *lines])
    assert told.startswith(words) and re.fullmatch(r"( [\d,]+(\u00d7\d+){0,2})*", told.removeprefix(words))


def test_blocks_grow_thicker_where_channels_grow():
    def thicknesses(name, stage):
        item = next(text[5] for text in texts_of(scene(drawn(name))) if text[4] == stage)
        return [round(shape[2][2] - shape[2][0], 2) for shape in item.shapes if shape[:2] == ["p", "face"]]

    grows = thicknesses("densenet121", "stage 2")
    assert len(grows) == 4 and grows == sorted(grows) and grows[0] < 0.8 * grows[-1]
    assert len(set(thicknesses("googlenet", "stage 1"))) == 2 and len(set(thicknesses("resnet50", "stage 3"))) == 1
    assert len(thicknesses("hrnet_w18", "head")) == 1, "the answer is one vector, however many blocks lead to it"
    assert not any("256" in text[4] for text in texts_of(scene(drawn("googlenet"), numbers=False)))


def test_a_strip_says_every_map_that_a_stage_gives_out():
    one = scene(drawn("hrnet_w18_small_v2"))
    item = next(text[5] for text in texts_of(one) if text[4] == "stage 3")
    faces = [shape[2] for shape in item.shapes if shape[:2] == ["p", "face"]]
    heights = [round(points[7] - points[1], 1) for points in faces]
    assert sorted(set(heights), reverse=True) == list(dict.fromkeys(heights)) and len(set(heights)) == 3, "each is drawn"
    assert faults_of(one) == [] == faults_of(scene(drawn("hrnet_w18_small_v2"), narrow=True))
    cells = next(text[5] for text in texts_of(scene(drawn("nasnet_cifar"))) if text[4] == "stage 1")
    assert sum(shape[:2] == ["p", "face"] for shape in cells.shapes) == 2, "two cells give out a map each"
    assert [shape[5] for shape in item.shapes if shape[0] == "t"][-3:] == ["18\u00d756\u00d756", "36\u00d728\u00d728", "72\u00d714\u00d714"]


def test_a_strip_says_what_stages_hold():
    texts = [text[4] for text in texts_of(scene(drawn("resnet50")))]
    assert [text for text in texts if "Bottleneck" in text] == [f"{n} \u00d7 Bottleneck" for n in (3, 4, 6, 3)]
    assert "2,048\u00d77\u00d77" in texts and "2,048\u00d77\u00d77" not in [
        text[4] for text in texts_of(scene(drawn("resnet50"), numbers=False))]


# --- what evaluation leaves out, and networks that are changed ---


@pytest.mark.parametrize("name, heads", [("googlenet", "aux1, aux2 (AuxiliaryHead)"),
                                         ("inception_v3", "stages.1.auxiliary (Sequential)"), ("resnet20", None)])
def test_auxiliary_heads_are_said_by_name(name, heads):
    found = drawn(name)
    for one in (scene(found), scene(found, narrow=True), scene(found, zoom="block")):
        assert faults_of(one) == []
        said = " ".join(text[4] for text in texts_of(one) if text[5].kind == "shape")
        assert (f"Not used in evaluation: {heads}" in said and said.split("Not")[1] in one.words) if heads else (
            "Not used" not in said + one.words)
    assert "Not used" not in scene(found, found.stages[1]).words


def signature(one):
    """How many of each kind of part a scene holds, and its words."""
    kinds = {}
    for item in one.items:
        kinds[item.kind] = kinds.get(item.kind, 0) + 1
    return kinds, [text[4] for text in texts_of(one)]


def without_shortcut(network):
    block = network.stages[1][1]
    block.forward = lambda x: block.activation(block.branch(x))


def addition_for_concatenation(network):
    for module in (network.stages[0][0].expand1x1, network.stages[0][0].expand3x3):
        conv, = (child for child in module.modules() if isinstance(child, nn.Conv2d))
        conv.out_channels *= 2
        conv.weight = nn.Parameter(torch.empty(2 * len(conv.weight), *conv.weight.shape[1:], device="meta"))
        conv.bias = None
    fire = network.stages[0][0]

    def forward(x):
        x = fire.squeeze(x)
        return fire.expand1x1(x) + fire.expand3x3(x)

    fire.forward = forward


def another_stride(network):
    conv = next(module for module in network.stages[2].modules() if isinstance(module, nn.Conv2d)
                and module.stride == (2, 2))
    conv.stride = (1, 1)


@pytest.mark.parametrize("name, mutate, stage, block, gone, come", [
    ("resnet20", without_shortcut, "stages.1", "stages.1.1", {"add": 1}, {}),
    ("squeezenet1_0", addition_for_concatenation, "stages.0", "stages.0.0", {"concatenate": 1}, {"add": 1}),
    ("mobilenet_v2", another_stride, "stages.2", "stages.2.0", {}, {}),
])
def test_a_mutated_network_of_the_zoo_is_drawn_as_it_is_now(name, mutate, stage, block, gone, come):
    """The whole, the stage and the block change where the network did; other stages of the same shapes do not."""
    size = find_variant(name).input_size
    with torch.device("meta"):
        network = create_model(name).eval()
    before = diagram(network, size, title=name)
    mutate(network)
    after = diagram(network, size, title=name)
    kinds, texts = signature(scene(before, block, "block"))
    new_kinds, new_texts = signature(scene(after, block, "block"))
    for kind in {*gone, *come, "add", "concatenate"}:
        assert new_kinds.get(kind, 0) == kinds.get(kind, 0) - gone.get(kind, 0) + come.get(kind, 0), kind
    inside = [sum(layer.kind == "conv" for layer in one.layers(one.find(block))) for one in (before, after)]
    assert inside[0] == inside[1] > 1, "the same convolutions, joined otherwise"
    if mutate is another_stride:
        assert sum(", /2" in text for text in texts) == 1 + sum(", /2" in text for text in new_texts)
        assert texts[-1] != new_texts[-1], "the map that comes out is larger"
    for part in (stage, ""):
        old, new = (svg_of(scene(one, part, "block" if part == "" else None), sheet=False) for one in (before, after))
        assert old != new, part or "whole"
    assert svg_of(scene(before, "stages.0" if stage != "stages.0" else "stem")) == svg_of(
        scene(after, "stages.0" if stage != "stages.0" else "stem"))
    marks, missing = differences(before, after, "", "block")
    assert marks or missing


# Five networks of torchvision, each with one change: block that changes, what its labels lose and gain, block that stays


def lost_shortcut(network):
    block = network.layer2[1]
    block.forward = lambda x: block.relu(block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x))))))


def lost_stride(network):
    network.features[7].conv[1][0].stride = (1, 1)


def lost_gate(network):
    network.features[3][1].block[2] = nn.Identity()


def gained_holes(network):
    conv = network.features.denseblock1.denselayer3.conv2
    conv.dilation = conv.padding = (2, 2)


def added_not_concatenated(network):
    fire = network.features[3]
    for name in ("expand1x1", "expand3x3"):
        old = getattr(fire, name)
        setattr(fire, name, nn.Conv2d(old.in_channels, 2 * old.out_channels, old.kernel_size, padding=old.padding, device="meta"))
    fire.forward = lambda x: sum(getattr(fire, name)(fire.squeeze(x)) for name in ("expand1x1", "expand3x3"))


def lost_groups(network):
    conv = network.layer2[1].conv2
    conv.groups, conv.weight = 1, nn.Parameter(torch.empty(256, 256, 3, 3, device="meta"))


def lost_activation(network):
    network.features[3].conv[0][2] = nn.Identity()


def another_activation(network):
    network.features[1][1].block[4] = nn.ReLU()


@pytest.mark.parametrize("name, change, block, lost, gained, same", [
    ("resnet18", lost_shortcut, "layer2.1", {"+": 1}, {}, "layer3.1"),
    ("mobilenet_v2", lost_stride, "features.7", {"/2": 1}, {}, "features.5"),
    ("efficientnet_b0", lost_gate, "features.3.1", {"sigmoid": 1, "\u00d7": 1}, {}, "features.2.1"),
    ("densenet121", gained_holes, "features.denseblock1.denselayer3", {}, {"dilated 2": 1}, "features.denseblock2.denselayer3"),
    ("squeezenet1_1", added_not_concatenated, "features.3", {"concatenate": 1, "ReLU": 3}, {"+": 1}, "features.6"),
    ("resnext50_32x4d", lost_groups, "layer2.1", {"groups": 1}, {}, "layer3.1"),
    ("mobilenet_v2", lost_activation, "features.3", {"ReLU6": 1}, {}, "features.5"),
    ("convnext_tiny", another_activation, "features.1.1", {"GELU": 1}, {"ReLU": 1}, "features.3.1"),
])
def test_a_change_in_a_network_of_torchvision_changes_its_drawing(name, change, block, lost, gained, same):
    network = others(name).eval()
    before = diagram(network, (3, 224, 224), title=name)
    change(network)
    after = diagram(network, (3, 224, 224), title=name)

    def signs(one):
        kinds = Counter()
        for layer in one.layers(one.find(block)):
            for key in ("/2", "dilated 2", "sigmoid", "concatenate", "groups"):
                kinds[key] += key in layer.label
            for key in ("ReLU", "ReLU6", "GELU"):
                kinds[key] += key == layer.label
            kinds["+"] += layer.kind == "add"
            kinds["\u00d7"] += layer.kind == "multiply"
        return +kinds

    assert signs(before) - signs(after) == Counter(lost) and signs(after) - signs(before) == Counter(gained)
    for narrow in (False, True):
        pictures = [svg_of(scene(one, block, "block", narrow=narrow), sheet=False) for one in (before, after)]
        assert pictures[0] != pictures[1]
        assert faults_of(scene(after, block, "block", narrow=narrow)) == []
    assert any(differences(before, after, block, "block"))
    if change is not lost_stride:  # behind another stride every map is larger
        assert svg_of(scene(before, same, "block"), sheet=False) == svg_of(scene(after, same, "block"), sheet=False)
