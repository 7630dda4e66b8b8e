"""The search space that chapter 11 searches."""

import pytest
import torch
from torch.nn import functional as F

from cnnlib.analysis import cost_table
from cnnlib.models.cell_search import OPERATIONS, CellNetwork, SearchCell, all_cells


def test_there_are_125_members():
    cells = all_cells()
    assert len(cells) == len(set(cells)) == 5**3
    assert all(set(cell) <= set(OPERATIONS) for cell in cells)


@pytest.mark.parametrize("operations", [(name, name, name) for name in OPERATIONS] + [("conv1", "skip", "conv3")])
def test_members_keep_shapes_and_learn_unless_nothing_is_connected(operations):
    torch.manual_seed(0)
    assert SearchCell(operations, 8)(torch.randn(2, 8, 6, 5)).shape == (2, 8, 6, 5)
    model = CellNetwork(operations=operations)
    logits = model(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert (model.stem.conv.weight.grad is None) == (operations == ("none", "none", "none"))


def test_a_residual_block_is_a_member():
    torch.manual_seed(0)
    cell = SearchCell(("conv3", "skip", "conv3"), 8).eval()
    x = torch.randn(2, 8, 6, 6)
    first, third = cell.first[1].conv.weight, cell.third[1].conv.weight
    scale = (1 + 1e-5) ** -0.5  # of a batch norm that has seen nothing
    h = F.conv2d(F.relu(x), first, padding=1) * scale
    torch.testing.assert_close(cell(x), x + F.conv2d(F.relu(h), third, padding=1) * scale)


def test_none_and_skip_and_pool_cost_nothing():
    free, dear = (cost_table(CellNetwork(operations=cell).eval(), (3, 32, 32)).total
                  for cell in (("none", "skip", "pool"), ("none", "skip", "conv1")))
    assert dear.macs - free.macs == 16**2 * 16**2 + 8**2 * 32**2 + 4**2 * 64**2
    assert dear.params - free.params == 16**2 + 32**2 + 64**2 + 2 * (16 + 32 + 64)


def test_unknown_operations_are_refused():
    with pytest.raises(ValueError, match="conv5"):
        SearchCell(("conv3", "skip", "conv5"), 8)
    with pytest.raises(ValueError, match="name three"):
        SearchCell(("conv3", "skip"), 8)
