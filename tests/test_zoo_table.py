"""The table of all networks is complete and up to date; depth agrees with the papers."""

import csv
import sys

import pytest
import torch
from torch import nn

from cnnlib import list_models
from cnnlib.analysis.depth import depth
from cnnlib.registry import find_variant
from zoo import count_params, is_quick, on_meta
from test_models import PUBLISHED, ROOT, row_id

sys.path.insert(0, str(ROOT / "tools"))
import zoo_table

ROWS = {row["name"]: row for row in csv.DictReader((ROOT / "data/zoo.csv").open(encoding="utf-8"))}
NAMES = list_models()


def test_the_table_has_every_network_in_order():
    assert list(ROWS) == sorted(NAMES, key=lambda name: (find_variant(name).family, name))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if is_quick(n) else pytest.mark.slow) for n in NAMES])
def test_rows_are_up_to_date(name):
    assert ROWS[name] == zoo_table.make_row(name)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_the_network(name):
    """Which tests of a network are quick is decided by these two."""
    model = on_meta(name)
    assert (int(ROWS[name]["params"]), int(ROWS[name]["modules"])) == (count_params(model), sum(1 for _ in model.modules()))


def test_the_page_shows_the_table():
    assert zoo_table.PAGE.read_text(encoding="utf-8") == zoo_table.as_page(list(ROWS.values()))


@pytest.mark.parametrize("row", [row for row in PUBLISHED if row["quantity"] == "depth"], ids=row_id)
def test_published_depth(row):
    assert ROWS[row["name"]]["depth"] == row["value"], row["source"]


def test_depth_of_small_networks():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.long = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
            self.short = nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = torch.cat([self.long(x) + self.short(x), self.short(x)], 1)[:, :4]
            return self.head(x.mean((2, 3)))

    class Gated(Branches):
        def forward(self, x):
            x = self.short(x)
            return x * self.head(x.mean((2, 3))).sum(1)[:, None, None, None]

    assert depth(Branches(), (3, 8, 8)) == 3
    assert depth(Gated(), (3, 8, 8)) == 1
    assert depth(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), (3, 8, 8)) == 0


@pytest.mark.parametrize("number, text", [(7, "7"), (999, "999"), (61_100_840, "61.1M"), (4_089_184_256, "4.09G"),
                                          (219_526, "220K"), (999_600, "1.00M"), (99_960, "100K"), (9_996, "10.0K")])
def test_three_digits(number, text):
    assert zoo_table.shortened(number) == text
