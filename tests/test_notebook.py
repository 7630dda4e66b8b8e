"""What notebooks draw and print: tables, checked answers, source code, figures."""

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
        "layer  size          parameters", "-------------------------------", "CONV1  96 x 55 x 55      34,944",
        "FC6    4096          37,752,832", "so"]
    assert table._repr_markdown_().splitlines()[1] == "| :-- | :-- | --: |"
    assert Table({"as printed": ["(3*3*64)*64", "*so*"]})._repr_markdown_().splitlines()[2:] == [r"| (3\*3\*64)\*64 |", "| *so* |"]


@pytest.mark.parametrize(("cells", "is_number"), [
    (["1.5", "-2", "+3.0"], True), (["76%", "4.1G", "12 ms", "1,024", "0.5x", "6e-04"], True), (["28.2", "-", ""], True),
    (["68.2 ± 0.8", "4\xa0±\xa01"], True), (["-8.4 to +1.5", "41 (40 to 42)"], True), (["3x3", "5x5"], False), (["2012 AlexNet", "1"], False),
    (["1 to", "2"], False), ([True, False], False), ([(1, 2), (3,)], False), ([1, None], False), ([1, 2.5], True)])
def test_columns_of_numbers_stand_to_the_right(cells, is_number):
    marks = Table({"it": cells})._repr_markdown_().splitlines()[1]
    assert marks == ("| --: |" if is_number else "| :-- |")


def test_table_of_unequal_columns_names_them():
    with pytest.raises(ValueError, match="'a': 1, 'b': 2"):
        Table({"a": [1], "b": [1, 2]})


GRID = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


class Unequal:
    def __eq__(self, other):
        raise KeyError("no")


@pytest.mark.parametrize("answer, truth, right", [
    # no answer yet; the same number in any form
    (None, 5, None), (5, 5, True), (5.0, 5, True), (torch.tensor(29), 29, True), (torch.tensor([29.0]), 29, True),
    (np.float64(29), 29, True), (np.int64(29), 29, True), (np.array(29), 29, True), (29, torch.tensor(29), True),
    # whole numbers are exact, but for large ones that are rounded to three digits or more
    (6, 5, False), (30, 29, False), (29.004, 29, False), (1230, 1234, False), (51_384_320, 51_384_320, True),
    (51_380_224, 51_384_320, False), (51_384_321, 51_384_320, False), (51.4e6, 51_384_320, True), (51_380_000, 51_384_320, True),
    (51.3e6, 51_384_320, False), (51e6, 51_384_320, False), (25e6, 24_950_001, True), (25e6, 24_949_999, False), (-51.4e6, 51_384_320, False), (99_900, 99_949, False),
    (100_000, 100_001, True), (100_002, 100_001, False), (123_000, 123_456, True), (0, 0, True), (1, 0, False), (10**400, 5, False), (float("nan"), 5, False),
    # others to 0.1%, or rounded to three digits
    (5.001, 5.0, True), (5.01, 5.0, False), (0.00552, 0.005524272, True), (0.0055, 0.005524272, False), (-5.0, 5.0, False),
    (1e-9, 0.0, False), (0.0, 1e-9, False), (1e-17, 0.0, True), (float("inf"), 5.0, False), (11.5, 11.45, True), (11.4, 11.46, False),
    # several values: number, order and kind
    ((1, 2), (1, 2), True), ([1, 2], (1, 2), True), (np.array([1, 2]), (1, 2), True), (torch.tensor([1, 2]), (1, 2), True),
    (torch.Size([1, 2]), (1, 2), True), ((2, 1), (1, 2), False), ((1, 2, 3), (1, 2), False), (3, (1, 2), False), ((5,), 5, False),
    ([(1, 2), 3], ((1, 2), 3), True), ((51.4e6, 0.5), (51_384_320, 0.5), True),
    # names, and True or False, which are no numbers
    ("5", 5, False), (5, "5", False), ("resnet18 ", "resnet18", True), ("resnet34", "resnet18", False),
    (True, True, True), (1, True, False), (True, 1, False), (np.True_, True, True), (torch.tensor(True), True, True), ((True, False), (True, True), False),
    # tensors
    (torch.ones(2), torch.ones(2), True), (torch.ones(3), torch.ones(2), False), (torch.ones(()), torch.ones(2, 3), False),
    (GRID, GRID, True), (GRID.double(), GRID, True), (GRID.tolist(), GRID, True), (GRID.numpy(), GRID, True), (GRID.T, GRID, False),
    (GRID.requires_grad_(), GRID, True), (GRID + 1e-4, GRID, True), (GRID + 0.01, GRID, False), (GRID[None], GRID, False),
    (GRID.to("meta"), GRID, False), (GRID * float("nan"), GRID, False), (torch.zeros(2), torch.full((2,), 1e-7), False),
    (torch.tensor([1, 2]), torch.tensor([1, 2]), True), (torch.tensor([1, 3]), torch.tensor([1, 2]), False),
    (torch.tensor([1, 0]), torch.tensor([True, False]), False), (torch.zeros(0), torch.zeros(0), True), ("x", GRID, False),
    # whatever else a reader may write
    (print, 5, False), (object(), (1, 2), False), (Unequal(), {1}, False), ({1}, {1}, True), (1j, 5, False), ([[1], [1, 2]], GRID, False),
])
def test_answers(answer, truth, right):
    verdict = check(answer, truth)
    assert verdict.right is right and bool(verdict) is bool(right)
    assert ("No answer yet" in repr(verdict)) is (right is None) and ("Right" in repr(verdict)) is bool(right)
    assert ("Not yet: " in repr(verdict)) is (right is False)


def test_a_tolerance_holds_for_whole_numbers_too_and_leaves_out_the_rounding():
    assert check(1010, 1000, tolerance=0.02) and not check(1030, 1000, tolerance=0.02)
    assert not check(51.4e6, 51_384_320, tolerance=1e-9) and check(51_384_320, 51_384_320, tolerance=1e-9)
    assert check(GRID * 1.01, GRID, tolerance=0.02) and not check(GRID * 1.01, GRID)
    assert check((1.01, 2.02), (1.0, 2.0), tolerance=0.02)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 10**13), st.integers(-9, 9), st.integers(3, 8))
def test_counts_are_right_if_exact_or_rounded_and_in_no_other_case(truth, off, digits):
    assert check(truth, truth) and check(float(f"{truth:.{digits - 1}e}"), truth).right in ((True,) if truth >= 100_000 else (True, False))
    near = truth + off
    rounded = truth >= 100_000 and near in (int(float(f"{truth:.{digits}e}")) for digits in range(2, 13))
    assert bool(check(near, truth)) is (off == 0 or rounded) or abs(off) == 5  # half a unit may go either way
    for wrong in (2 * truth, truth / 2, -truth, truth * 1.1):
        assert not check(wrong, truth)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=4))
def test_values_in_another_order_or_number_are_refused(values):
    assert check(values, tuple(values)) and check(torch.tensor(values), tuple(values)) and check(values, torch.tensor(values))
    assert not check(values[:-1], tuple(values)) and not check([*values, 1.0], tuple(values)) and not check([values], tuple(values))
    if max(values) > 1.02 * min(values):
        assert not check(sorted(values), tuple(sorted(values, reverse=True)))


def test_a_rejection_says_what_is_known():
    usual = {"these are FLOPs, two for each multiply-add": 2 * 118_013_952, "the bias is missing": 37_748_736}
    assert repr(check(236_027_904, 118_013_952, usual=usual)) == "Not yet: these are FLOPs, two for each multiply-add."
    assert check(2.36e8, 118_013_952, usual=usual).hint == "these are FLOPs, two for each multiply-add"
    assert check(37_748_736, 37_752_832, usual=usual).hint == "the bias is missing"
    assert check(37_752_832, 37_752_832, usual=usual).hint == ""
    assert repr(check(1, 37_752_832, usual=usual)) == "Not yet: compute it once more."
    for answer, truth, said in [
        (GRID.T, GRID, "the last two axes are exchanged"), (torch.ones(2, 2), GRID, "shape (2, 3), yours (2, 2)"),
        (torch.ones(()), GRID, "shape (2, 3), yours ()"), (5, GRID, "a tensor of shape (2, 3), not one number"),
        ((2, 1), (1, 2), "in another order"), ((1, 2), (1, 2, 3), "3 values, not 2"), (1, (1, 2), "2 values, not one number"),
        (torch.tensor([2, 1]), (1, 2), "in another order"), ("x", (1, 2), "2 values, not a str"),
        ((5, 5), 5, "one value, not several"), (torch.ones(2), 5, "one value, not several"), ("5", 5, "a number, not a str"),
        (5, "five", "a name in quotes, not one number"), (1, True, "True or False, not one number"), (True, 1, "a number, not"),
    ]:
        assert said in repr(check(answer, truth)), (answer, truth, check(answer, truth))
    assert check((3, 4), (1, 2)).hint == check(GRID + 1, GRID).hint == check(4, 5).hint == ""


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


def test_pictures_and_filters(ax):
    plots.pictures(np.zeros((5, 3, 8, 8), dtype=np.uint8), list("abcde"), columns=3, ax=ax)
    assert [text.get_text() for text in ax.texts] == list("abcde")
    plots.filters(torch.randn(4, 3, 5, 5), columns=2, ax=ax)


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


def test_receptive_fields_are_drawn_to_scale(ax, alexnet):
    field = receptive_field(alexnet, (3, 32, 32))
    plots.receptive_fields(field, {"stem.conv": "CONV1", "stem": "POOL1"}, np.zeros((32, 32, 3)), ax=ax)
    assert [patch.get_width() for patch in ax.patches] == [field["stem.conv"].size[1], field["stem"].size[1]]


def test_source_of_a_decorated_function_names_its_own_file():
    from cnnlib.analysis import occlusion_map  # wrapped by torch.no_grad()

    assert Source(occlusion_map).files == ["cnnlib/analysis/inside.py"]
