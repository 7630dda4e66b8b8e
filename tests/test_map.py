"""The map of architectures: it holds every network with the numbers of their sources, and draws what it says."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import traitlets

from cnnlib import list_models
from cnnlib.data import load_result, load_table
from cnnlib.registry import find_variant
from cnnlib.widgets import ArchitectureMap
from cnnlib.widgets import map as module_of_map
from cnnlib.widgets.base import MOST_DATA
from browsing import Watched
from libraries import published
from test_drawing import contrast
from test_widgets import node  # noqa: F401 (a fixture)

ZOO = {row["name"]: row for row in load_table("zoo")}


def marks(explorer, source):
    entry, = (entry for entry in explorer.data["sources"] if entry["name"] == source)
    names = [row[0] for row in explorer.data["networks"]]
    return {mark[1]: (names[mark[0]], *mark[2:]) for mark in entry["marks"]}


# --- what it holds ---


def test_every_network_is_on_the_map():
    explorer = ArchitectureMap()
    rows = {row[0]: dict(zip(explorer.data["columns"], row)) for row in explorer.data["networks"]}
    assert sorted(rows) == list_models()
    for name, row in rows.items():
        for ours, theirs in {"params": "params", "macs": "macs", "activations": "activations", "field": "receptive_field"}.items():
            assert row[ours] == int(ZOO[name][theirs])
    families = [family for group in dict(explorer.data["groups"]).values() for family in group]
    assert sorted(families) == sorted({row["family"] for row in ZOO.values()}), "each family in one group"
    assert len(json.dumps(explorer.data)) <= MOST_DATA


def test_families_look_different(node):  # noqa: F811
    """Each has a colour and a shape that no other has together; what is added to the book's has a colour of its own."""
    groups = [*module_of_map.GROUPS.items(), ("Others", ["meannet"])]
    families = [family for _, group in groups for family in group]
    looks, = node("map", [["looks", groups]])
    assert set(looks) == set(families) and len(set(families)) == len(families) >= 34
    assert len({tuple(look) for look in looks.values()}) == len(families)
    assert looks["meannet"][0] not in {looks[family][0] for family in families[:-1]}
    known = {row["family"] for row in ZOO.values()}
    assert set(families[:-1]) <= known, "no family that is gone"


def test_colours_of_groups_stand_out_in_both_themes():
    sheet = (Path(module_of_map.__file__).parent / "static" / "map.css").read_text(encoding="utf-8")
    pairs = re.findall(r"--group-\d: light-dark\((#\w{6}), (#\w{6})\)", sheet)
    assert len(pairs) == len(set(pairs)) == len(module_of_map.GROUPS) + 1
    for light, dark in pairs:
        assert contrast(light, "#ffffff") >= 4.5 and contrast(dark, "#1b1e23") >= 4.5
    fills = re.findall(r"\.cx-group-\d \{ --mark: var\(--group-(\d)\); (?:fill-opacity: ([\d.]+))", sheet)
    assert len(fills) == len(pairs)


def test_published_accuracies_are_the_quoted_ones():
    papers = marks(ArchitectureMap(), "papers")
    assert papers["resnet50_v1"][1:3] == (75.3, 92.2)  # 24.7% and 7.8% error
    assert papers["efficientnet_b0"][1:3] == (77.1, 93.3)
    assert papers["googlenet_2014"][1:3] == (None, 89.93)
    assert "Table 2" in papers["efficientnet_b0"][5]
    assert marks(ArchitectureMap(), "cifar10")["resnet110"][1] == 93.57


def test_weights_of_torchvision_are_what_it_says_of_them():
    for row in load_table("torchvision_weights"):
        weights, = (one for one in published.published_weights(f"torchvision.{row['name']}") if one.name == row["weights"])
        assert (float(row["top1_accuracy"]), float(row["top5_accuracy"])) == (weights.top1, weights.top5)
        assert weights.crop == find_variant(row["name"]).input_size[1] and f"crop of {weights.crop} " in row["source"]
    labels = marks(ArchitectureMap(), "torchvision")
    assert labels["resnet50"][0] == labels["resnet50 (V2)"][0] == "resnet50"


RUNS = {
    "resnet20, seed 0": ("resnet20", 60.0), "resnet20, seed 1": ("resnet20", 64.0), "resnet20, seed 2": ("resnet20", 62.0),
    "resnet20 stochastic depth, seed 0": ("resnet20", 58.0), "nin_cifar, seed 0": ("nin_cifar", 66.0),
}


@pytest.fixture
def measured(monkeypatch):
    """A map of records made up for the test."""
    runs = {name: {"recipe": {"model": model}, "rows": [{"test_accuracy": 1.0}, {"test_accuracy": value}]}
            for name, (model, value) in RUNS.items()}
    records = {"benchmark": {"description": "A test", "runs": runs},
               "latency": {"hardware": {"device": "cpu", "name": "A processor", "threads": 1}, "precision": "float32",
                           "networks": {"resnet20": {"milliseconds": 1.5}, "nin_cifar": {"milliseconds": 4.0}}}}
    monkeypatch.setattr(module_of_map, "load_result", records.__getitem__)
    return lambda *args, **kwargs: ArchitectureMap("measured", *args, **{"network": "resnet20", **kwargs})


def test_measurements_stand_apart_with_their_spread(measured):
    ours = marks(measured(), "measured")
    assert ours["resnet20"][:5] == ("resnet20", 62.0, None, 60.0, 64.0) and "mean of 3 seeds" in ours["resnet20"][5]
    assert ours["resnet20 stochastic depth"][:5] == ("resnet20", 58.0, None, None, None)
    assert not set(ours) - {"resnet20", "resnet20 stochastic depth", "nin_cifar"}
    assert "milliseconds" in dict(measured().data["quantities"]) and "on A processor, 1 thread," in measured().data["clock"]


def test_records_that_are_not_there_are_left_out(monkeypatch):
    def missing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(module_of_map, "load_result", missing)
    explorer = ArchitectureMap()
    assert [entry["name"] for entry in explorer.data["sources"]] == ["papers", "torchvision", "cifar10"]
    assert "milliseconds" not in dict(explorer.data["quantities"])
    with pytest.raises(ValueError, match="source='measured'.*'papers'"):
        ArchitectureMap("measured")


@pytest.mark.parametrize("name, value, said", [
    ("source", "imagenet", "source='imagenet'.*'papers'"), ("x", "flops", "x='flops'.*'macs'"), ("y", "", "y=''"),
    ("size", "year", "size='year'.*'params'"), ("scale", "log10", "scale='log10'"),
    ("families", ["resnet", "inception"], "families='inception'.*'resnet'"), ("network", "resnet51", "network='resnet51'"),
])
def test_wrong_arguments_are_named(name, value, said):
    with pytest.raises(ValueError, match=said):
        ArchitectureMap(**{name: value})
    explorer = ArchitectureMap()
    with pytest.raises((ValueError, traitlets.TraitError), match=said):
        setattr(explorer, name, value)


# --- what its script computes ---


def frontier(rows, cost, accuracy):
    """By definition: those that no other one equals or beats in both, and beats in one."""
    beaten = lambda row: any(other[cost] <= row[cost] and other[accuracy] >= row[accuracy]  # noqa: E731
                             and (other[cost], other[accuracy]) != (row[cost], row[accuracy]) for other in rows)
    return {(row[cost], row[accuracy]) for row in rows if not beaten(row)}


@pytest.mark.parametrize("source", ["papers", "torchvision", "cifar10"])
def test_frontier_is_what_nothing_beats(node, source):  # noqa: F811
    explorer = ArchitectureMap()
    every, = node("map", [["marksOf", explorer.data, source]])
    rows = [row for row in every if row.get("top1") is not None]
    assert {row["label"] for row in rows} == {name for name, mark in marks(explorer, source).items() if mark[1] is not None}
    assert len({row["label"] for row in every}) == len(every)
    for cost in ("macs", "params", "activations", "year"):
        best, = node("map", [["frontier", rows, cost, "top1"]])
        assert {(row[cost], row["top1"]) for row in best} == frontier(rows, cost, "top1")
        assert [row[cost] for row in best] == sorted({row[cost] for row in best})


def test_axes_with_costs_alone_show_every_network(node):  # noqa: F811
    data = ArchitectureMap().data
    small, large = node("map", [["marksOf", data, "cifar10"], ["marksOf", data, "papers"]])
    names = {row["name"] for row in small} | {row["name"] for row in large}
    assert names == set(ZOO) and {row["side"] for row in small} == {32}


def test_ticks_are_round_and_inside(node):  # noqa: F811
    ranges = [(0.7, 4e10, True), (3e7, 5e10, True), (150e3, 3e6, True), (2e6, 2.6e6, True), (48.2, 86.3, False),
              (2012, 2022, False), (0, 1, False), (91.2, 96.6, False)]
    for (low, high, log), found in zip(ranges, node("map", [["ticks", *case] for case in ranges])):
        assert 1 <= len(found) <= 11 and found == sorted(set(found)) and low <= found[0] and found[-1] <= high
    years, = node("map", [["ticks", 2011.5, 2022.5, False, 8]])
    assert years == [2012, 2014, 2016, 2018, 2020, 2022]


# --- in a browser ---


def fact(page, name):
    return page.locator(f"dd[data-fact='{name}']").inner_text()


def test_map_by_keyboard_mouse_and_list(show):  # noqa: F811
    page = show(ArchitectureMap())
    shown = {name for name, mark in marks(ArchitectureMap(), "papers").items() if mark[1] is not None}
    options = page.get_by_role("option", include_hidden=False)
    plot = page.get_by_role("listbox")
    assert plot.locator("[role=option]").count() == len(shown)
    assert fact(page, "Accuracy").startswith("top-1 73%") and "Table 3" in fact(page, "From")  # VGG-16: 27.0% error

    plot.focus()
    page.keyboard.press("Home")
    cheapest = min((name for name in shown), key=lambda name: (int(ZOO[name]["macs"]), name))
    assert fact(page, "Network").startswith(cheapest + " ")
    page.keyboard.press("End")
    assert fact(page, "Network").startswith(max(shown, key=lambda name: int(ZOO[name]["macs"])))
    page.keyboard.press("Escape")
    assert fact(page, "Network").startswith("choose one")
    page.get_by_label("Network", exact=True).select_option("alexnet_two_tower")
    assert "top-1 59.3%, top-5 81.8%" in fact(page, "Accuracy")
    page.get_by_label("Upwards").select_option("top5")
    assert "Top-5" in plot.get_attribute("aria-label")

    page.get_by_role("button", name="Hide all").click()
    assert plot.locator("[role=option]").count() == 0 and "No family" in page.get_by_role("status").inner_text()
    page.get_by_label("vgg", exact=True).check()
    assert plot.locator("[role=option]").count() == 6
    plot.scroll_into_view_if_needed()  # the list of families beside it is long
    box = plot.locator("[aria-label^='vgg19:'] path").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert fact(page, "Network").startswith("vgg19 ")
    assert options.count() >= 6
    page.get_by_role("button", name="Back to the example").click()
    assert plot.locator("[role=option]").count() == len(shown) and fact(page, "Network").startswith("vgg16 ")
    page.get_by_label("Accuracy from").select_option("cifar10")
    page.get_by_label("Upwards").select_option("top5")
    assert "no top-5 accuracy" in page.get_by_role("status").inner_text()
    page.get_by_label("Upwards").select_option("params")
    assert plot.locator("[role=option]").count() == sum(row["input"].endswith("x32x32") for row in ZOO.values())


def test_map_saves_what_it_shows(show, measured):  # noqa: F811
    page = show(measured(x="milliseconds"))
    files = {}
    for kind in ("CSV", "SVG", "PNG"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save as {kind}").click()
        assert download.value.suggested_filename == f"networks_top1_by_milliseconds_measured.{kind.lower()}"
        files[kind] = Path(download.value.path()).read_bytes()
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(files["CSV"].decode()))}
    assert set(rows) == {"resnet20", "resnet20 stochastic depth", "nin_cifar"}
    assert (rows["resnet20"]["top1"], rows["resnet20"]["top1_lowest"], rows["resnet20"]["milliseconds"]) == ("62", "60", "1.5")
    assert (rows["resnet20"]["frontier"], rows["resnet20 stochastic depth"]["frontier"]) == ("yes", "no")
    text = files["SVG"].decode()
    assert text.startswith("<svg") and "Accuracy: this book (CIFAR-10)" in text and "resnet20" in text and "var(" not in text
    assert files["PNG"].startswith(b"\x89PNG") and len(files["PNG"]) > 5000


def test_picture_is_well_formed(show):  # noqa: F811
    import xml.etree.ElementTree as tree

    page = show(ArchitectureMap(), "dark")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as SVG").click()
    root = tree.fromstring(Path(download.value.path()).read_text(encoding="utf-8"))
    assert root.tag.endswith("svg") and int(root.get("width")) > 300


def test_what_has_an_order_keeps_it_in_a_notebooks_file():
    """Jupyter writes the names of an object in alphabetical order; groups and axes must not depend on that."""
    explorer = ArchitectureMap()
    stored = json.loads(json.dumps(explorer.data, sort_keys=True))
    assert [title for title, _ in stored["groups"]][:5] == list(module_of_map.GROUPS)
    assert [name for name, _ in stored["quantities"]] == [name for name in module_of_map.QUANTITIES if name in dict(stored["quantities"])]
