"""What notebooks draw and print: tables, checked answers, source code, figures."""

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402

from cnnlib import create_model, plots  # noqa: E402
from cnnlib.analysis import Device, cost_table, receptive_field  # noqa: E402
from cnnlib.models.alexnet import AlexNet  # noqa: E402
from cnnlib.notebook import Source, Table, check, use_house_style  # noqa: E402


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


@pytest.fixture(scope="module")
def alexnet():
    with torch.device("meta"):
        return create_model("alexnet_cifar").eval()


# tables, answers, source


def test_table_aligns_numbers_and_says_its_note():
    table = Table({"layer": ["CONV1", "FC6"], "size": [(96, 55, 55), (4096,)], "parameters": [34944, 37752832]}, note="so")
    assert repr(table).splitlines() == [
        "layer  size          parameters", "CONV1  96 x 55 x 55      34,944", "FC6    4096          37,752,832", "so"]
    assert table._repr_markdown_().splitlines()[1] == "| :-- | :-- | --: |"


def test_table_of_unequal_columns_names_them():
    with pytest.raises(ValueError, match="'a': 1, 'b': 2"):
        Table({"a": [1], "b": [1, 2]})


@pytest.mark.parametrize("answer, truth, right", [
    (None, 5, None), (5, 5, True), (5.001, 5.0, True), (6, 5, False), ((1, 2), (1, 2), True), ([1, 2], (1, 2), True),
    (3, (1, 2), False), ("5", 5, False), (torch.ones(2), torch.ones(2), True), (torch.ones(3), torch.ones(2), False),
])
def test_answers(answer, truth, right):
    verdict = check(answer, truth)
    assert verdict.right is right and bool(verdict) is bool(right)
    assert ("No answer yet" in repr(verdict)) is (right is None)


def test_source_is_the_packages_own():
    shown = Source(AlexNet.forward)
    assert repr(shown).startswith("def forward(self") and "cnnlib/models/alexnet.py" in shown._repr_markdown_()


# figures


def test_house_style_draws_in_the_colours_of_the_book(ax):
    use_house_style()
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"][:3] == ["#0072B2", "#D55E00", "#009E73"]
    plt.rcdefaults()


def test_layer_costs_are_shares_of_the_whole(ax, alexnet):
    rows = [row for row in cost_table(alexnet, (3, 32, 32)) if row.params]
    assert plots.layer_costs(rows, "params", ax=ax) is ax
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(100)
    with pytest.raises(ValueError, match="quantity='flops'"):
        plots.layer_costs(rows, "flops", ax=ax)


def test_curves_have_a_line_for_each_run(ax):
    rows = [{"epoch": 1, "test_accuracy": 50.0}, {"epoch": 2, "test_accuracy": 60.0}]
    plots.curves({"one": rows, "two": rows}, ax=ax)
    assert [line.get_label() for line in ax.lines] == ["one", "two"] and ax.get_ylabel() == "test accuracy (%)"
    assert len({line.get_linestyle() for line in ax.lines}) == 2  # colour is not the only cue


def test_pictures_filters_and_maps(ax):
    plots.pictures(np.zeros((5, 3, 8, 8), dtype=np.uint8), list("abcde"), columns=3, ax=ax)
    assert [text.get_text() for text in ax.texts] == list("abcde")
    plots.filters(torch.randn(4, 3, 5, 5), columns=2, ax=ax)
    plots.feature_maps([(3, 32, 32), (8, 16, 16), (10,)], ["input", "CONV1", "FC"], ax=ax)
    assert [patch.get_height() for patch in ax.patches[:2]] == [32, 16]
    with pytest.raises(ValueError, match="1 shapes but 2 names"):
        plots.feature_maps([(3, 32, 32)], ["a", "b"], ax=ax)


def test_roofline_has_a_point_for_each_product_below_the_roof(ax, alexnet):
    table, device = cost_table(alexnet, (3, 32, 32)), Device("a", 1e12, 1e10)
    plots.roofline(device, {"all": table}, ax=ax)
    points = np.asarray(ax.collections[0].get_offsets())
    assert len(points) == sum(row.macs > 0 for row in table)
    assert (points[:, 1] <= np.minimum(1, points[:, 0] / 100) * (1 + 1e-9)).all()  # TFLOP/s


def test_connections_are_a_triangle(ax):
    plots.connections({"layer 1": [1.0], "layer 2": [0.5, 2.0], "classifier": [0.1, 0.2, 0.3]}, limits=(0, 2), ax=ax)
    grid = ax.images[0].get_array()
    assert grid.shape == (3, 3) and np.ma.count(np.ma.masked_invalid(grid)) == 6
    assert [label.get_text() for label in ax.get_yticklabels()] == ["input", "layer 1", "layer 2"]


def test_branches_have_a_box_for_each_layer_and_both_ends(ax):
    plots.branches([["1x1"], ["1x1", "3x3"], []], "in", "out", ax=ax)
    assert sorted(text.get_text() for text in ax.texts if text.get_text()) == ["1x1", "1x1", "3x3", "in", "out"]
    assert len(ax.patches) == 5


def test_receptive_fields_are_drawn_to_scale(ax, alexnet):
    field = receptive_field(alexnet, (3, 32, 32))
    plots.receptive_fields(field, {"stem.conv": "CONV1", "stem": "POOL1"}, np.zeros((32, 32, 3)), ax=ax)
    assert [patch.get_width() for patch in ax.patches] == [field["stem.conv"].size[1], field["stem"].size[1]]


def test_block_diagram_has_a_box_for_each_layer_and_a_sum_for_many_branches(ax):
    layers = ["1x1, d", "3x3, d"]
    assert plots.block_diagram([layers], after=["ReLU"], ax=ax) is ax
    assert [text.get_text() for text in ax.texts if text.get_text()] == [*layers, "ReLU", "x"] and len(ax.patches) == 4
    plt.gcf().clear()
    drawn = plots.block_diagram([layers, layers], merged=["norm"])
    assert [text.get_text() for text in drawn.texts if text.get_text()] == [*layers, *layers, "norm", "x"]
    assert len(drawn.patches) == 5 + 2  # the second circle is the sum of the branches


def test_source_of_a_decorated_function_names_its_own_file():
    from cnnlib.analysis import occlusion_map  # wrapped by torch.no_grad()

    assert Source(occlusion_map).files == ["cnnlib/analysis/inside.py"]
