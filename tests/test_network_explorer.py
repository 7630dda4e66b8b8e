"""The network explorer: its state against the analysis, its formulas against the counts, its walk in a browser."""

import functools
import json

import pytest
from torch import nn

from cnnlib import list_models
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.widgets import NetworkExplorer
from cnnlib.widgets.base import MOST_DATA
from cnnlib.widgets.network import _shorter
from explorers import example
from test_widgets import node  # noqa: F401
from zoo import on_meta


explorer_of = functools.cache(NetworkExplorer)  # made once; leave it as it is


def opened(node, explorer, name):  # noqa: F811
    """What network.js makes of the state for one open group."""
    return node("network", [["openGroup", explorer.data, name]])[0]


def test_rows_are_those_of_the_analysis(node):  # noqa: F811
    explorer = explorer_of("resnet50")
    table = {row.name: row for row in cost_table(on_meta("resnet50").eval(), (3, 224, 224))}
    fields = receptive_field(on_meta("resnet50"), (3, 224, 224))
    seen = 0
    for group in explorer.data["groups"]:
        for row in opened(node, explorer, group)["rows"]:
            if row["kind"] in ("conv", "fc", "norm") and row["name"] in table:
                expected = table[row["name"]]
                assert (row["params"], row["macs"], tuple(row["output"])) == (expected.params, expected.macs,
                                                                              expected.output_shape)
                assert row["code"] == repr(on_meta("resnet50").get_submodule(row["name"]))
                seen += 1
            if row["field"] and row["kind"] == "conv":
                field = fields[row["name"]]
                assert row["field"][:2] == list(field.size) and row["field"][4:6] == list(field.start)
                assert row["field"][2:4] == list(field.stride) and row["field"][6:8] == list(field.units)
    assert seen > 40


def test_everything_drawn_can_be_reached_and_opened(node):  # noqa: F811
    explorer = NetworkExplorer("densenet_cifar")
    groups = {name: opened(node, explorer, name) for name in explorer.data["groups"]}
    for group in groups.values():
        assert {row["name"] for row in group["rows"] if row["opens"]} <= set(groups)
        ids = {row["id"] for row in group["rows"]}
        for scene in group["scenes"]:
            assert {item[0] for item in scene["items"]} - {-1, 0} <= ids
        assert all(a in ids and b in ids for a, b in group["edges"])
    names = node("network", [["trail", explorer.data, "stages.1.1.0"]])[0]
    assert names == ["", "stages.1", "stages.1.1", "stages.1.1.0"]
    assert len(explorer.data["templates"]) <= len(groups)


def test_repeats_are_kept_once_and_counted(node):  # noqa: F811
    explorer = NetworkExplorer("resnet110")
    rows = opened(node, explorer, "stages.0")["rows"]
    assert [(row["name"], row["times"], row["last"]) for row in rows] == [("stages.0.0", 18, "stages.0.17")]
    assert "stages.0.7" not in explorer.data["groups"]


@pytest.mark.parametrize("name", ["nasnet_large", "densenet201", "resnet152", "efficientnet_b7"])
def test_large_networks_stay_small(name):
    assert len(json.dumps(NetworkExplorer(name).data, separators=(",", ":"))) <= MOST_DATA


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_network_stays_small(name):
    assert len(json.dumps(NetworkExplorer(name).data, separators=(",", ":"))) <= MOST_DATA


@pytest.mark.parametrize("name", ["alexnet_227", "mobilenet_v2", "convnext_tiny", "resnext50_32x4d", "vgg16"])
def test_formulas_give_the_numbers_of_the_analysis(node, name):  # noqa: F811
    explorer = NetworkExplorer(name)
    rows = [row for group in explorer.data["groups"] for row in opened(node, explorer, group)["rows"]]
    rows = [row for row in rows if row["kind"] in ("conv", "fc")]
    results = node("network", [["formulas", row] for row in rows])
    assert len(rows) > 5
    for row, result in zip(rows, results, strict=True):
        assert (result["params"], result["macs"]) == (row["params"], row["macs"]), row["label"]
        assert all("NaN" not in (text or "") for text in result["text"])
        if row["kind"] == "conv" and len(row["output"]) == 3:
            assert result["side"] == row["output"][1]


def test_inputs_of_a_block_are_told_by_name(node):  # noqa: F811
    explorer = NetworkExplorer("nasnet_mobile")
    first, second = (opened(node, explorer, f"stages.0.{i}") for i in (2, 3))
    for i, group in ((2, first), (3, second)):
        rows = [row for row in group["rows"] if row["kind"] == "input"]
        assert [(row["id"], row["label"], row["name"]) for row in rows] == [
            (-2, f"from stages.0.{i - 2}", f"stages.0.{i - 2}"), (-3, f"from stages.0.{i - 1}", f"stages.0.{i - 1}")]
        assert all(row["params"] == row["macs"] == row["activations"] == 0 and not row["opens"] for row in rows)
        texts = [shape[-1] for scene in group["scenes"] for item in scene["items"] for shape in item[2] if shape[0] in "tb"]
        assert sum(text.startswith(f"from stages.0.{i - 2}\n") for text in texts) == len(group["scenes"])
        assert f"From stages.0.{i - 2} (" in group["scenes"][0]["words"]
        assert not any("@" in text for text in texts)
        assert {-2, -3} <= {a for a, _ in group["edges"]}
        paths = node("network", [["onPaths", group["edges"], -2]])[0]
    assert explorer.data["groups"]["stages.0.2"][0] == explorer.data["groups"]["stages.0.3"][0], "kept once"


@pytest.mark.parametrize("path, shorter", [
    ("M1 2L1 5.5M1 5.5L4 5.5M9 9L8 7", "M1 2v3.5h3M9 9l-1-2"), ("M0 0C0 5 10 5 10 10L10 12", "M0 0c0 5 10 5 10 10v2"),
    ("M5 9L1.5 3L8.5 3ZM5 9L1.5 3L8.5 3Z", "M5 9l-3.5-6h7zM5 9l-3.5-6h7z"), ("", ""),
    ("M1 2L1 5M1 9L1 12", "M1 2v3M1 9v3"), ("M0 0L4 0Q8 0 8 4L8 9", "M0 0h4q4 0 4 4v5")])
def test_paths_are_written_in_few_characters(path, shorter):
    assert _shorter(path) == shorter


def test_own_modules_and_wrong_arguments():
    explorer = NetworkExplorer(nn.Sequential(nn.Conv2d(1, 2, (3, 5)), nn.ReLU(), nn.MaxPool2d(2)),
                               input_size=(1, 20, 30))
    assert repr(explorer) == "NetworkExplorer(Sequential at 1x20x30)"
    for call, message in [
        (lambda: NetworkExplorer("resnet51"), "resnet51"), (lambda: NetworkExplorer(nn.ReLU()),
                                                            "no designed input size"),
        (lambda: NetworkExplorer("alexnet", part="stages.9"), "part='stages.9'"),
        (lambda: NetworkExplorer("alexnet", input_size=(3, 224)), r"\(3, 224\)"),
        (lambda: setattr(explorer, "colour", "red"), "colour='red'"),
        (lambda: setattr(explorer, "layer", 99), "layer=99"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


# --- in a browser ---


def fact(page, name):
    return page.locator(f"[data-fact='{name}'] dd").inner_text()


def test_from_the_whole_to_a_layer_and_back_by_keys(show):  # noqa: F811
    page = show(explorer_of("resnet50"))
    status = page.get_by_role("status")
    assert "resnet50" in status.inner_text()
    page.locator(".cx-part[tabindex='0']").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert "stage 2" in status.inner_text() or "stage 1" in status.inner_text()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    assert page.locator(".cx-facts h4").inner_text() == "stage 1"
    page.keyboard.press("Enter")
    assert page.locator("[aria-current=page]").inner_text() == "stage 1"
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.keyboard.press("Home")
    conv = on_meta("resnet50").stages[0][0]
    first = next(module for module in conv.modules() if isinstance(module, nn.Conv2d))
    assert page.locator(".cx-code").inner_text() == repr(first)
    assert fact(page, "parameters").startswith(f"{first.weight.numel():,} (")
    assert "64 \u00d7 64 \u00d7 1 \u00d7 1" in page.locator(".cx-worked").inner_text()
    assert page.locator(".cx-seen").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("[aria-current=page]").inner_text() == "stage 1"
    page.keyboard.press("Escape")
    assert page.locator("[aria-current=page]").inner_text() == "resnet50"


def test_by_mouse_colour_path_and_link(show):  # noqa: F811
    page = show(NetworkExplorer("googlenet", part="stages.0"))
    page.locator(".cx-part").first.click()
    page.get_by_role("button", name="Open Inception").click()
    assert page.locator("[aria-current=page]").inner_text() == "Inception"
    page.locator(".cx-part", has_text="3\u00d73 conv").first.click()
    page.get_by_label("Follow the paths through the chosen layer").check()
    dim = page.locator(".cx-part.off").count()
    kept = page.locator(".cx-part:not(.off)").all_text_contents()
    assert dim > 8 and any("concatenate" in text for text in kept) and sum("1\u00d71 conv" in text
                                                                           for text in kept) == 1
    before = page.locator(".cx-part .box").first.evaluate("node => getComputedStyle(node).fill")
    page.get_by_role("radio", name="parameters").check()
    assert page.locator(".cx-part .box").first.evaluate("node => getComputedStyle(node).fill") != before
    assert "the darkest, 3\u00d73 conv, 128, has 110,592 parameters" in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Link to this view").click()
    url = page.url
    assert "#network=googlenet&part=stages.0.0&layer=" in url
    page.goto("about:blank")
    page.goto(url)
    page.wait_for_selector(".explorer[data-ready]")
    assert page.locator("[aria-current=page]").inner_text() == "Inception"
    assert page.locator(".cx-facts h4").inner_text().startswith("3\u00d73 conv, 128")


def test_what_is_open_tells_its_own_numbers(show):  # noqa: F811
    page = show(NetworkExplorer("resnet50", part="stages.1"))
    own = sum(parameter.numel() for parameter in on_meta("resnet50").stages[1].parameters())
    assert page.locator(".cx-facts h4").inner_text() == "stage 2"
    assert fact(page, "parameters").startswith(f"{own:,} (") and fact(page, "shape") == "256 \u00d7 56 \u00d7 56 \u2192 512 \u00d7 28 \u00d7 28"
    page.keyboard.press("Tab")
    page.locator(".cx-part").first.focus()
    page.keyboard.press("Escape")
    assert page.locator(".cx-facts h4").inner_text() == "stage 2" and page.get_by_role("button", name="Open stage 2").count() == 1


def test_an_input_can_be_chosen_and_followed(show):  # noqa: F811
    page = show(NetworkExplorer("nasnet_mobile", part="stages.0.2"))
    page.locator(".cx-part", has_text="from stages.0.0").click()
    assert page.locator(".cx-facts h4").inner_text() == "from stages.0.0"
    assert fact(page, "module") == "stages.0.0" and page.locator("[data-fact=parameters]").count() == 0
    page.get_by_label("Follow the paths through the chosen layer").check()
    other = page.locator(".cx-part", has_text="from stages.0.1")
    assert "off" in other.get_attribute("class") and page.locator(".cx-part:not(.off)").count() > 3


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["network", "normalization", "question", "stack", "fusion", "block"])
def test_room_is_kept_until_an_explorer_runs_and_none_is_left(show, name, width):  # noqa: F811
    page = show(example(name), width=width)
    frame, inside = (page.locator(which).bounding_box() for which in (".explorer", ".explorer > *"))
    assert frame["height"] - inside["height"] < 20, "empty room"
    kept = page.locator(".explorer").evaluate("""element => {
        delete element.dataset.ready;
        return parseFloat(getComputedStyle(element).minHeight);
    }""")
    on_a_page = frame["height"] * (1.6 if (name, width) == ("network", 1280) else 1)  # there its facts stand below it
    assert 0.6 < kept / on_a_page < 1.5, (kept, frame["height"])
    assert page.evaluate("window.shift") <= 0.15


def test_narrow_pages_get_the_narrow_drawing(show):  # noqa: F811
    page = show(NetworkExplorer("vgg16"), "dark", 360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator(".cx-net").bounding_box()
    assert box["height"] > 2 * box["width"]
    page.locator(".cx-part").nth(2).click()
    assert page.locator(".cx-facts h4").inner_text().startswith("3\u00d73 conv, 128")
