"""Figures draw what they are given, in its place, its order and its unit."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from cnnlib import plots
from cnnlib.analysis import Device


@pytest.fixture
def ax():
    _, axes = plt.subplots()
    yield axes
    plt.close("all")


def row(name, macs=0, bytes_moved=0, **counts):
    device_seconds = lambda device: device.seconds(macs, bytes_moved)  # noqa: E731
    return SimpleNamespace(name=name, macs=macs, flops=2 * macs, intensity=2 * macs / (bytes_moved or 1),
                           seconds=device_seconds, **counts)


def test_bars_stand_in_forward_order_from_the_top_with_shares_in_percent(ax):
    plots.layer_costs([row("first", params=30), row("second", params=10)], "params", ax=ax)
    first, second = ax.patches
    assert (first.get_width(), second.get_width()) == (75, 25)
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert [text.get_text() for text in ax.texts] == ["75.0%", "25.0%"] and "parameters" in ax.get_xlabel()
    assert matplotlib.colors.to_hex(first.get_facecolor()).upper() == "#D55E00"


def test_pictures_fill_rows_first_and_stand_upright(ax):
    images = np.zeros((3, 3, 4, 6), dtype=np.uint8)  # wider than high
    for number in range(3):
        images[number, 0, 0, number] = 255  # a red pixel in the first row, in column `number`
    plots.pictures(images, columns=2, ax=ax)
    sheet = np.asarray(ax.images[0].get_array())
    red = [(int(y), int(x)) for y, x in np.argwhere((sheet == [255, 0, 0]).all(axis=2))]
    (y0, x0), (y1, x1), (y2, x2) = sorted(red)
    assert y0 == y1 and x1 - x0 == 6 + 2 + 1 and x2 - x0 == 2 and y2 - y0 == 4 + 2
    assert sheet.shape[1] == 2 * 6 + 2 and sheet.shape[0] == 2 * (4 + 2)


def test_values_from_0_to_1_become_bytes(ax):
    plots.pictures(np.full((1, 1, 4, 4), 0.5), ax=ax)
    assert 127 in np.asarray(ax.images[0].get_array())


def test_each_filter_uses_its_whole_range(ax):
    weight = np.stack([np.linspace(0, 1, 27).reshape(3, 3, 3), np.linspace(0, 9, 27).reshape(3, 3, 3)])
    plots.filters(weight, columns=2, ax=ax)
    sheet = np.asarray(ax.images[0].get_array())
    for part in (sheet[2:, :3], sheet[2:, 5:]):
        assert (part.min(), part.max()) == (0, 255)


def field(size, stride, start):
    return SimpleNamespace(size=size, stride=stride, start=start)


def test_fields_have_rows_upright_and_columns_across(ax):
    plots.receptive_fields({"a": field((5, 9), (2, 4), (-1, -3))}, {"a": "A"}, np.zeros((20, 40, 3)), ax=ax)
    box, = ax.patches
    assert (box.get_width(), box.get_height()) == (9, 5)
    assert box.get_xy() == (-3 + 4 * round((15.5 + 3) / 4), -1 + 2 * round((7.5 + 1) / 2))
    assert "A: 5x9" in box.get_label() and ax.get_xlabel() == "column (pixels)"
    assert ax.images[0].get_extent() == [0, 40, 20, 0] or tuple(ax.images[0].get_extent()) == (0, 40, 20, 0)


def test_roofline_is_in_teraflops_with_its_ridge_at_the_right_intensity(ax):
    device = Device("d", 4e12, 1e11)
    plots.roofline(device, {"all": [row("a", macs=10**9, bytes_moved=10**9),
                                    row("b", macs=10**12, bytes_moved=10**9)]}, ax=ax)
    roof = ax.lines[0]
    assert roof.get_xdata()[1] == 40 and max(roof.get_ydata()) == 4
    points = dict(np.asarray(ax.collections[0].get_offsets()).tolist())
    assert points == {2.0: pytest.approx(0.2), 2000.0: pytest.approx(4.0)}


def test_connections_have_readers_across_and_sources_down(ax):
    plots.connections({"layer 1": [1.0], "layer 2": [0.5, 2.0]}, ax=ax)
    grid = np.asarray(ax.images[0].get_array(), dtype=float)
    assert grid[0].tolist() == [1.0, 0.5] and np.isnan(grid[1, 0]) and grid[1, 1] == 2.0


def test_curves_begin_with_their_first_epoch(ax):
    rows = [{"epoch": epoch, "train_loss": 2.0 / epoch} for epoch in (1, 2)]
    plots.curves({"run": rows}, "train_loss", ax=ax)
    assert ax.lines[0].get_xdata().tolist() == [1, 2] and ax.lines[0].get_ydata().tolist() == [2.0, 1.0]
    assert ax.get_ylabel() == "training loss (nats)" and ax.get_xlabel() == "epoch"
