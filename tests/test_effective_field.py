"""The receptive field explorer's second half: what units really listen to; and any network fits on a page."""

import base64
import copy
import json

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import gradient_footprint, gradient_footprints
from cnnlib.widgets import CostTableExplorer, ReceptiveFieldExplorer
from cnnlib.widgets import receptive_field as module_of_field
from cnnlib.widgets.base import MOST_DATA
from explorers import long_table
from test_widgets import node  # noqa: F401 (a fixture)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 49, 5))


def test_several_layers_at_once_are_the_same_as_one_at_a_time():
    network, images = small_network(), torch.randn(2, 2, 20, 20)
    together = gradient_footprints(network, images, ["0", "3"], initializations=2, seed=3)
    assert list(together) == ["0", "3"]
    for name, found in together.items():
        alone = gradient_footprint(network, images, name, initializations=2, seed=3)
        assert torch.equal(found.map, alone.map) and found.unit == alone.unit
    with pytest.raises(ValueError, match="no module '9'"):
        gradient_footprints(network, images, ["0", "9"])


def test_footprints_are_those_of_the_analysis():
    network = small_network()
    state = torch.get_rng_state()
    explorer = ReceptiveFieldExplorer(network, input_size=(2, 20, 20), footprints=["3"])
    assert torch.equal(state, torch.get_rng_state())
    found, = explorer.data["footprints"].values()
    assert found["unit"] == [3, 3] and found["box"] == [6, 6, 8, 8] and found["shape"] == [8, 8]
    maps = []
    for seed in range(module_of_field.INITIALIZATIONS):
        torch.manual_seed(seed)
        images = torch.randn(1, 2, 20, 20)
        maps.append(gradient_footprint(network, images, "3", seed=seed).map)
    mean = sum(maps) / len(maps)
    values = torch.tensor(list(base64.b64decode(found["values"]))).view(8, 8)
    part = mean[6:14, 6:14]
    assert (values - 255 * (part / part.max()).sqrt()).abs().max() <= 0.51
    middle = [round(float((mean.sum(1 - axis) * torch.arange(20)).sum()), 1) for axis in (0, 1)]
    assert found["centre"] == middle and found["half"] < found["most"] <= 10


def test_effective_field_is_smaller_than_the_field():
    explorer = ReceptiveFieldExplorer("resnet20", footprints=True)
    sizes = {layer["name"]: layer["size"][0] for layer in explorer.layers}
    assert 4 <= len(explorer.data["footprints"]) <= module_of_field.MOST_FOOTPRINTS + 1
    assert explorer.layer in explorer.data["footprints"] and explorer.footprint
    for name, found in explorer.data["footprints"].items():
        assert found["half"] < found["most"] <= max(sizes[name] + 2, 3)
    deepest = list(explorer.data["footprints"])[-1]
    assert explorer.data["footprints"][deepest]["half"] < sizes[deepest] / 2
    assert len(json.dumps(explorer.data)) <= MOST_DATA


def test_wrong_layers_are_named():
    with pytest.raises(ValueError, match="footprints='stem.cnv'.*'stem.conv'"):
        ReceptiveFieldExplorer("alexnet_cifar", footprints=["stem.cnv"])


@pytest.mark.parametrize("name", ["alexnet_227", "googlenet", "shufflenet_v1_g3"])
def test_rows_hold_every_layer(name, node, monkeypatch):  # noqa: F811
    found = []
    layers_of = module_of_field._layers
    monkeypatch.setattr(module_of_field, "_layers", lambda *args: found.append(layers_of(*args)) or copy.deepcopy(found[0]))
    explorer = ReceptiveFieldExplorer(name)
    [layers] = found
    assert explorer.layers == layers
    keys = ("name", "kind", "size", "stride", "start", "units", "global", "unaligned", "spans")
    unpacked, = node("receptive_field", [["unpack", explorer.data]])
    assert unpacked == [{key: json.loads(json.dumps(layer[key])) for key in keys} for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet1202", "preresnet1001", "nasnet_large", "densenet_bc250_k24", "efficientnet_b7"])
def test_the_largest_networks_fit(name):
    assert len(json.dumps(ReceptiveFieldExplorer(name).data, separators=(",", ":"))) <= MOST_DATA


def test_footprint_is_drawn_where_the_unit_looks(show):  # noqa: F811
    explorer = ReceptiveFieldExplorer("alexnet_cifar", footprints=True, layer="stages.1.0.conv")
    page = show(explorer)
    found = explorer.data["footprints"]["stages.1.0.conv"]
    stride = next(layer for layer in explorer.layers if layer["name"] == "stages.1.0.conv")["stride"][1]
    assert f"95% within {found['most']} × {found['most']} pixels" in page.locator("[data-fact=listens]").inner_text()

    def place():
        picture = page.locator(".cx-field mask image")
        return [float(picture.get_attribute(name)) for name in ("x", "y", "width", "height")]

    row, column, height, width = found["box"]
    assert place() == [column, row, width, height]
    page.get_by_role("slider", name="Unit column").focus()
    page.keyboard.press("ArrowLeft")
    assert place() == [column - stride, row, width, height]
    page.get_by_label("Show what it listens to").uncheck()
    assert page.locator(".cx-field mask").count() == 0 and page.locator(".cx-shade").count() == 1
    page.get_by_role("button", name="Back to the example").click()
    assert page.locator(".cx-field mask").count() == 1


# --- the cost table's column for training ---


def test_training_column_holds_what_autograd_keeps(show):  # noqa: F811
    from cnnlib.analysis import training_memory

    explorer = CostTableExplorer("alexnet_cifar")
    with torch.device("meta"):
        network = create_model("alexnet_cifar")
    memory = training_memory(network, (3, 32, 32))
    entry, = explorer.data["tables"]
    assert sum(entry["saved"]) == memory.saved == entry["kept"]["saved"]
    names = [row[0] for row in explorer.data["layers"][0]]
    for row in memory:
        assert entry["saved"][names.index(row.name)] == row.saved
    page = show(explorer)
    heads = page.locator("thead th")
    assert heads.count() == 6
    page.get_by_label("Show what training keeps").check()
    assert heads.count() == 7 and "Kept for training" in heads.nth(4).inner_text()
    total = page.locator("tfoot .cx-figure .cx-full").all_inner_texts()[1]
    assert int(total.replace(",", "")) == round(memory.saved / 4)
    page.get_by_role("button", name="Kept for training").click()
    first = page.locator("tbody tr").first.inner_text()
    assert first.startswith(max(memory, key=lambda row: row.saved).name)
    assert "for the backward pass" in page.get_by_role("status").inner_text()


def test_training_is_counted_in_training_mode_and_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU())
    in_training = CostTableExplorer(network, sizes=[(3, 8, 8)]).data["tables"][0]["saved"]
    network.eval()
    network[2].train()
    assert CostTableExplorer(network, sizes=[(3, 8, 8)]).data["tables"][0]["saved"] == in_training
    assert [module.training for module in network] == [False, False, True, False]
    assert "saved" not in CostTableExplorer("fractalnet_cifar").data["tables"][0]  # draws a column by chance


def test_long_tables_come_in_parts_and_are_whole(show):  # noqa: F811
    explorer = long_table()
    count = len(explorer.data["layers"][0])
    page = show(explorer)
    page.wait_for_function(f"document.querySelectorAll('tbody tr').length === {count}")
    page.locator(".cx-scroll").evaluate("node => node.scrollTo(0, 6000)")
    page.get_by_label("FLOPs").check()
    assert page.locator(".cx-scroll").evaluate("node => node.scrollTop") == 6000
    page.wait_for_function(f"document.querySelectorAll('tbody tr').length === {count}")
    page.get_by_label("Name or kind contains").fill("norm")
    count = sum("norm" in f"{row[0]} {row[1]}".lower() for row in explorer.data["layers"][0])
    page.wait_for_function(f"document.querySelectorAll('tbody tr').length === {count}")
