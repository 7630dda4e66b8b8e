"""The table of operators, the closed forms and what is remembered: all of them beside PyTorch's own word."""

import inspect
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from analysis_graphs import Wrapped
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnlib.analysis import AnalysisError, Input, cost_table, ops, receptive_field, training_memory
from cnnlib.analysis.closed import RULES
from cnnlib.analysis.fields.rules import Follower
from cnnlib.analysis.trace import trace
from cnnlib.models.nfnet import ScaledConv2d


@pytest.mark.parametrize("function", RULES, ids=lambda function: getattr(function, "__qualname__", str(function)))
def test_a_closed_form_takes_what_pytorch_takes_or_leaves_it_to_the_general_path(function):
    rule, names, _ = RULES[function]
    override = torch.overrides.get_testing_overrides().get(function)
    theirs = inspect.signature(override if override is not None else torch.overrides.get_testing_overrides()[torch.relu]).parameters
    positional = [name for name, p in theirs.items() if p.kind is p.POSITIONAL_OR_KEYWORD and name not in ("args", "kwargs")]
    if override is None or "args" not in theirs:
        same = {"tensor1": "input", "self": "input", "other": "other"}
        assert [same.get(name, name) for name in positional][:len(names)] == list(names)[:len(positional)]
    defaults = {name: p.default for name, p in list(inspect.signature(rule).parameters.items())[1:] if p.default is not p.empty}
    for name, default in defaults.items():
        if name in theirs and theirs[name].default is not inspect.Parameter.empty and name not in ("stride", "momentum"):
            assert theirs[name].default == default, name


@pytest.mark.parametrize("call, other", [
    (lambda x: torch.add(x, x, alpha=2), 48), (lambda x: x.add(x, alpha=3), 48), (lambda x: x.clone().add_(x, alpha=3), 48),
    (lambda x: torch.cat([x, x], axis=1), 0), (lambda x: torch.mul(input=x, other=2.0), 48), (lambda x: torch.relu(input=x), 48),
    (lambda x: F.gelu(x, approximate="tanh"), 48), (lambda x: F.relu(input=x, inplace=False), 48)])
def test_keywords_are_counted(call, other):
    assert cost_table(Wrapped(call), (3, 4, 4)).total.other == other


def test_a_wrong_keyword_is_still_wrong():
    with pytest.raises(AnalysisError, match="inplace"):
        cost_table(Wrapped(lambda x: torch.relu(x, inplace=True)), (3, 4, 4))


def test_operators_are_pytorchs_own():
    """A name that no PyTorch has is a slip: its entry would never be found."""
    aten = torch.ops.aten
    others = {op for op in ops.OPERATORS if not hasattr(aten, op) and not hasattr(aten, op + "_")}
    assert others == {"written_through"}  # what a trace writes down beside them
    assert ops.argument_names("convolution")[:3] == ("input", "weight", "bias")
    assert ops.argument_names("written_through") == ()


def test_every_rule_of_fields_is_used_and_there():
    assert {entry.field for entry in ops.OPERATORS.values()} - {""} == {name[7:] for name in vars(Follower) if name.startswith("follow_")}


def test_an_operator_without_an_entry_is_treated_alike_everywhere():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), Wrapped(lambda x: torch.special.i0(x)))
    table = cost_table(model, (1, 6, 6))
    assert table.unknown == (("i0", "1"),) or table.unknown == (("special_i0", "1"),)
    assert f"without multiply-adds here: {table.unknown[0][0]}" in str(table)
    assert (table[1].macs, table[1].other) == (0, 36)
    with pytest.raises(AnalysisError, match="i0.*module '1'"):
        receptive_field(model, (1, 6, 6))
    partial = receptive_field(model, (1, 6, 6), strict=False)
    assert list(partial) == ["0"] and [one.module for one in partial.missing] == ["1"] and "not followed" in str(partial)
    assert cost_table(nn.Conv2d(1, 1, 1), (1, 6, 6)).unknown == ()


def shuffled(x):
    y = x.flip(2).unfold(2, 2, 1).sum(-1)
    a, b = y.chunk(2, 1)
    return F.layer_norm(torch.cat([b.roll(1, 3), a], 1), y.shape[-1:]).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4).softmax(1)


@pytest.mark.parametrize("model", [
    Wrapped(shuffled), nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.PReLU()),
    nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(81, 3)), ScaledConv2d(4, 8, 3),
    Wrapped(lambda x: x.clone().mul_(2)[:, 1:].add_(1).sum((2, 3), keepdim=True).expand_as(x[:, 1:]))])
def test_what_is_remembered_is_what_was_recorded(model):
    size = (4, 9, 9)
    general, first, again = (trace(model.eval(), size, fast=fast) for fast in (False, True, True))
    for other in (first, again):
        assert general.peak_bytes == other.peak_bytes
        ours, theirs = list(other.nodes()), list(general.nodes())
        if len(ours) == len(theirs):
            numbers = [{}, {}]
            for a, b in zip(ours, theirs):
                assert (a.op.strip("_"), a.is_view, a.names) == (b.op.strip("_"), b.is_view, b.names)
                for value, twin in zip((*a.inputs, *a.outputs), (*b.inputs, *b.outputs)):
                    assert (value.shape, value.dtype, value.parameters) == (twin.shape, twin.dtype, twin.parameters)
                    assert numbers[0].setdefault(value.storage, len(numbers[0])) == numbers[1].setdefault(twin.storage, len(numbers[1]))
    assert [(n.op, [v.shape for v in n.outputs]) for n in first.nodes()] == [(n.op, [v.shape for v in n.outputs]) for n in again.nodes()]


# Products beside PyTorch's counter


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.rand(8, 8))
        self.register_buffer("b", torch.rand(8, 8))

    def forward(self, x):
        return x @ (self.b @ self.b) + x @ self.w


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 4)

    def forward(self, x):
        return torch.vmap(self.linear)(x)


def test_products_of_constants_and_of_mapped_functions_count():
    assert cost_table(Mixed(), (8,)).total.macs == 8 * 8 * 8 + 2 * 8 * 8 == 640
    with torch.device("meta"):
        assert cost_table(Mixed(), (8,)).total.macs == 640
    assert cost_table(Mapped(), (5,), batch_size=3).total.macs == 60
    assert cost_table(Mapped(), (2, 5), batch_size=3).total.macs == 120
    weight = torch.rand(4, 5)
    for mapped in (Mapped(), Wrapped(torch.vmap(lambda one: F.linear(one, weight)))):  # what comes out has its batch
        assert cost_table(nn.Sequential(mapped, nn.Linear(4, 6)), (2, 5), batch_size=3).total.macs == 120 + 144
    assert cost_table(Wrapped(lambda x: torch.vmap(torch.vmap(torch.dot))(x, x)), (7, 5), batch_size=3).total.macs == 3 * 7 * 5
    inner = Wrapped(lambda x: torch.vmap(lambda one: one @ one.T, in_dims=2, out_dims=1)(x))
    assert cost_table(inner, (6, 5), batch_size=3).total.macs == 5 * 3 * 3 * 6
    assert cost_table(inner, (6, 5), batch_size=3)[0].output_shape == (5, 3)
    vector = torch.rand(5)
    assert cost_table(Wrapped(lambda x: x @ vector), (4, 5), batch_size=2).total.macs == 2 * 4 * 5
    assert cost_table(nn.Bilinear(3, 4, 5), [(3,), (4,)], batch_size=2).total.other == 2 * 2 * 60 + 2 * 5


def test_gradients_taken_in_a_forward_pass_count():
    linear = nn.Linear(4, 5)

    class Energy(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.linear, self.function = linear, function

        def forward(self, x):
            return self.function(self.linear, x)

    def by_hand(layer, x):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return torch.autograd.grad(layer(y).square().sum(), y)[0]

    for function, products in ((lambda layer, x: torch.func.grad(lambda y: layer(y).square().sum())(x), 2), (by_hand, 2),
                               (lambda layer, x: torch.func.jvp(layer, (x,), (x,))[1], 3)):  # one with the weight's tangent, zeros
        table = cost_table(Energy(function), (4,), batch_size=3)
        assert table.total.macs == products * 3 * 20 and table.unknown == ()


@pytest.mark.parametrize("frozen", [False, True])
def test_the_backward_pass_is_counted_as_pytorch_counts_it(frozen):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(2), nn.Linear(16, 6))
    model[0].requires_grad_(not frozen)
    images = torch.rand(2, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        model(images)
    forward = counter.get_total_flops() // 2
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    table = cost_table(model, (3, 8, 8), batch_size=2, backward=True)
    assert table.total.backward == counter.get_total_flops() // 2 - forward
    grouped = nn.Sequential(model[0], nn.Conv2d(8, 8, 3, groups=2))  # of whose weights' gradient PyTorch counts twice the work
    twice = 2 * 16 * 8 * 4 * 9 * (1 if frozen else 2)
    assert cost_table(grouped, (3, 8, 8), batch_size=2, backward=True).total.backward == twice + (not frozen) * 2 * 36 * 216
    assert "backward" in table.records()[0] and "backward" not in cost_table(model, (3, 8, 8)).records()[0]


# Inputs


def test_inputs_by_keyword_in_lists_and_with_dtypes():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.conv = nn.Embedding(10, 4), nn.Conv2d(3, 4, 1)

        def forward(self, tokens, *, images=None, pyramid=(), scale=None, flag=False):
            assert tokens.dtype is torch.int64 and scale is None and flag
            return self.embedding(tokens).sum() + sum(self.conv(level).sum() for level in [images["left"], *pyramid])

    size = {"tokens": Input((7,), torch.int64), "images": {"left": (3, 4, 4)}, "pyramid": [(3, 2, 2), torch.rand(2, 3, 1, 1)],
            "scale": None, "flag": True}
    table = cost_table(Text(), size, batch_size=2)
    assert table.total.macs == 2 * 12 * (16 + 4 + 1) and table.batch_size == 2 and "batch 2" in table.note
    assert training_memory(Text(), size, batch_size=2).saved > 0
    assert cost_table(Wrapped(lambda pair: pair[0] @ pair[1]), [[(4, 5), (5, 6)]]).total.macs == 120
    table = cost_table(Wrapped(lambda x, shift: x + shift), [(3, 4), Input((3, 4), batched=False)], batch_size=5)
    assert table[0].output_shape == (3, 4)


@pytest.mark.parametrize("arguments, message", [
    ({"batch_size": 0}, "batch_size must be"), ({"batch_size": 1.5}, "1.5"), ({"dtype": "float16"}, "'float16'"),
    ({"dtype": torch.int8}, "int8")])
def test_arguments_that_make_no_sense_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        cost_table(nn.Flatten(), (3, 8, 8), **arguments)


def test_numpys_integers_are_integers_and_a_batch_is_left_out():
    model = nn.Conv2d(3, 4, 3)
    assert cost_table(model, (np.int64(3), np.int32(8), 8), batch_size=np.int64(2)).total.macs == 2 * 36 * 108
    for watch in (cost_table, training_memory, receptive_field):
        with pytest.raises(AnalysisError, match=r"leave out the batch and write \(3, 32, 32\)"):
            watch(model, (1, 3, 32, 32))
    with pytest.raises(ValueError, match="batch_size must be"):
        training_memory(model, (3, 8, 8), batch_size=0)
    for device in ("tpu", "cuda", "meta", "cuda:99", None):
        if device != "cuda" or not torch.cuda.is_available():
            with pytest.raises((ValueError, AnalysisError), match="device must be|cuda"):
                training_memory(model, (3, 8, 8), device=device)


NEEDS_VALUES = [lambda x: x[x > 0], torch.unique, lambda x: x * x.sum().item(), torch.nonzero, lambda x: torch.masked_select(x, x > 0),
                lambda x: x if x.sum() > 0 else -x, lambda x: x * float(x.max()), lambda x: x.tolist(), lambda x: x.numpy(),
                lambda x: torch.bincount(x.long().flatten())]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function", NEEDS_VALUES)
def test_what_needs_values_is_named_with_its_module(function):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Wrapped(function))
    for watch in (cost_table, receptive_field, training_memory):
        with pytest.raises(AnalysisError, match=r"module '1' \(Wrapped\).*needs the values of a tensor"):
            watch(model, (3, 8, 8))
    table = cost_table(model, (3, 8, 8), strict=False)
    assert [row.name for row in table if row.called][0] == "0" and table[0].macs == 64 * 9
    assert len(table.missing) == 1 and table.missing[0].module == "1" and "incomplete" in str(table)


# Tables


def test_formulas_for_an_operation_and_for_a_module():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return torch.special.i0(self.inner(x))

    model = nn.Sequential(Own(), nn.Conv2d(4, 5, 1))
    op = next(iter(cost_table(model, (3, 8, 8)).unknown))[0]
    table = cost_table(model, (3, 8, 8), formulas={op: lambda node: 7 * node.outputs[0].numel})
    assert table.total.macs == 36 * 108 + 36 * 20 + 7 * 144 and table.unknown == ()
    table = cost_table(model, (3, 8, 8), formulas={Own: lambda module, inputs, outputs: 1000 * inputs[0][1] * outputs[0][1]})
    assert [(row.name, row.macs, row.params) for row in table] == [("0", 12000, 112), ("1", 36 * 20, 25)]
    with pytest.raises(TypeError, match="formulas"):
        cost_table(model, (3, 8, 8), formulas={3: len})


def test_tree_columns_shares_and_short_numbers():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(8, 16, 3), nn.Flatten()), nn.Linear(256, 10))
    table = cost_table(model, (3, 8, 8))
    tree = table.tree(depth=1)
    assert [(part.name, part.kind, part.level) for part in tree] == [
        ("", "Sequential", 0), ("0", "Sequential", 1), ("1", "Sequential", 1), ("2", "Linear", 1)]
    assert [part.macs for part in tree] == [table.total.macs, 36 * 216, 16 * 1152, 2560] and tree[1].output_shape == (8, 6, 6)
    assert len(table.tree()) == 8 and [part.level for part in table.tree()] == [0, 1, 2, 2, 1, 2, 2, 1]
    assert table.tree(0).rows[0].params == table.total.params
    text = str(tree)
    assert f"{100 * 2560 / table.total.macs:.1f}%" in text and "7.78K" in text and "  2 " in text
    columns = table.with_columns("macs", "name", "macs%", short=True)
    assert str(columns).splitlines()[0].split() == ["multiply-adds", "layer", "%", "of", "multiply-adds"]
    with pytest.raises(ValueError, match="no column 'mac'.*macs"):
        table.with_columns("mac")
    with pytest.raises(ValueError, match="depth"):
        table.tree(-1)


def test_every_result_prints_in_every_form():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
    for result in (cost_table(model, (3, 16, 16)), training_memory(model, (3, 16, 16)), receptive_field(model, (3, 16, 16)),
                   cost_table(model, (3, 16, 16)).stages(), cost_table(model, (3, 16, 16)).tree()):
        assert list(result.to_frame().columns) == result.to_csv().splitlines()[0].split(",")
        assert result.to_markdown().startswith("| ") and result._repr_html_().startswith("<table>") and str(result)


def test_results_survive_pickling():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    table, memory, fields = cost_table(model, (3, 16, 16)), training_memory(model, (3, 16, 16)), receptive_field(model, (3, 16, 16))
    again = pickle.loads(pickle.dumps((table, memory, fields)))
    assert again[0].rows == table.rows and str(again[0]) == str(table) and again[0].tree().rows == table.tree().rows
    assert str(again[1]) == str(memory) and again[1].peak == memory.peak
    assert str(again[2]) == str(fields) and dict(again[2]) == dict(fields) and again[2].output == fields.output
    assert again[2]["2"].pixels((1, 1)) == fields["2"].pixels((1, 1)) and pickle.loads(pickle.dumps(fields["0"])) == fields["0"]


def test_recurrent_layers_keep_their_kernels_workspaces():
    from test_analysis_memory import really_saved

    model = nn.LSTM(10, 20, 2, batch_first=True)
    assert training_memory(model, (7, 10), batch_size=2).saved == really_saved(model, torch.rand(2, 7, 10))
    assert training_memory(nn.GRU(5, 6), (3, 5), batch_size=2).saved == really_saved(nn.GRU(5, 6), torch.rand(2, 3, 5))
