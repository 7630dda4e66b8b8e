"""FractalNet: the expansion rule, drop-path that leaves a way through, and columns that are plain networks."""

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import training_memory
from cnnlib.models.fractalnet import FractalBlock, FractalNet, PlainColumn, draw_survivors
from zoo import count_params, on_meta, randomize


def small(**arguments) -> FractalNet:
    torch.manual_seed(0)
    return FractalNet(**{"widths": (4, 6), "dropout": (0, 0), "num_classes": 5, **arguments})


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(child, nn.Conv2d) for child in module.modules())


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5])
def test_depth_and_number_of_convolutions(columns):
    with torch.device("meta"):
        block = FractalBlock(3, 4, columns=columns)
    assert [convolutions(column) for column in block.columns] == [2**k for k in range(columns)]
    assert convolutions(block.columns[-1]) == 2 ** (columns - 1)
    assert convolutions(block) == 2**columns - 1


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_the_block_follows_the_expansion_rule(columns):
    """f_{C+1}(z) = f_C(f_C(z)) joined with conv(z), where a join next to another is one join of all their inputs."""
    block = randomize(FractalBlock(3, 4, columns=columns)).eval()

    def inputs_of_last_join(k, z, part):
        conv = block.columns[k][part](z)
        if k == columns - 1:
            return [conv]
        middle = torch.stack(inputs_of_last_join(k + 1, z, 2 * part)).mean(0)
        return [conv, *inputs_of_last_join(k + 1, middle, 2 * part + 1)]

    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(block(x), torch.stack(inputs_of_last_join(0, x, 0)).mean(0))


@pytest.mark.parametrize("columns, printed", enumerate(("0.3", "0.8", "2.1", "4.8", "10.2", "21.1"), start=1))
def test_parameters_of_the_study_of_depth(columns, printed):
    """Table 3 of the paper, CIFAR-100."""
    with torch.device("meta"):
        model = create_model("fractalnet_cifar", columns=columns, num_classes=100)
    assert f"{count_params(model) / 1e6:.1f}" == printed


def test_parameters_are_those_of_the_columns():
    with torch.device("meta"):
        model = small(columns=3)
        columns = [count_params(model.column(k)) for k in (1, 2, 3)]
    assert count_params(model) == sum(columns) - 2 * count_params(model.head)
    assert count_params(on_meta("fractalnet_cifar_plain")) == count_params(on_meta("fractalnet_cifar").column(3))


def test_a_join_never_loses_all_inputs():
    torch.manual_seed(0)
    for inputs in (2, 3, 4):
        draws = [draw_survivors(inputs, 0.9) for _ in range(300)]
        assert all(draws) and all(set(draw) <= set(range(inputs)) for draw in draws)
        assert {draw[0] for draw in draws if len(draw) == 1} == set(range(inputs))
        assert draw_survivors(inputs, 0.0) == list(range(inputs))
    kept = sum(len(draw_survivors(4, 0.15)) for _ in range(2000)) / 8000
    assert abs(kept - 0.85) < 0.02


def test_local_drop_path_is_for_training():
    model = small(columns=3, global_drop_path=0.0, local_drop_path=0.5)
    x = torch.randn(8, 3, 16, 16)
    outputs = {tuple(model(x)[0].tolist()) for _ in range(10)}
    assert len(outputs) > 3
    model.eval()
    assert torch.equal(model(x), model(x))
    x.requires_grad_(True)
    model.train()
    for _ in range(20):  # some path always leads through
        assert torch.autograd.grad(model(x).square().sum(), x)[0].any()


def test_global_drop_path_takes_one_column_through_the_whole_network():
    model = small(columns=3, global_drop_path=1.0)
    x = torch.randn(8, 3, 16, 16)
    expected = [model.column(k)(x) for k in (1, 2, 3)]
    taken = set()
    for _ in range(30):
        out = model(x)
        (k,) = [k for k, column in enumerate(expected, start=1) if torch.allclose(out, column, atol=1e-5)]
        taken.add(k)
    assert taken == {1, 2, 3}


def test_a_cut_column_is_the_plain_network_with_the_same_weights():
    model = randomize(small(columns=3)).eval()
    x = torch.randn(2, 3, 16, 16)
    for k in (1, 2, 3):
        plain = model.column(k)
        assert isinstance(plain, PlainColumn) and not plain.training
        assert convolutions(plain) == 2 * 2 ** (k - 1)
        through = x
        for stage in model.stages:
            through = stage(through, k)
        assert torch.equal(plain(x), model.head(through))
    with torch.no_grad():
        plain.head[-1].weight.zero_()  # a copy: the whole keeps its own
    assert model.head[-1].weight.any()
    assert torch.equal(small(columns=1).eval().column(1)(x), small(columns=1).eval()(x))


def test_errors():
    model = small()
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"column {k} .* 1 to 3"):
            model.column(k)
    with pytest.raises(ValueError, match="columns=0"):
        small(columns=0)
    with pytest.raises(ValueError, match="local_drop_path=1.0"):
        small(local_drop_path=1.0)
    with pytest.raises(ValueError, match="global_drop_path=1.5"):
        small(global_drop_path=1.5)
    with pytest.raises(ValueError, match="one probability for each"):
        small(dropout=(0.1,))


def test_training_memory_can_be_counted_without_drop_path():
    with torch.device("meta"):
        model = create_model("fractalnet_cifar", local_drop_path=0.0, global_drop_path=0.0).train()
    assert training_memory(model, (3, 32, 32)).saved > 0
