"""Explorers without a browser: small plain state, exact numbers, errors that name what is wrong, equal formulas."""

import itertools
import json
import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import traitlets
from PIL import Image
from torch import nn

from cnnlib import create_model
from cnnlib import widgets
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.widgets import ConvolutionArithmetic, CostTableExplorer, FollowPhotograph, NormalizationAxes, ReceptiveFieldExplorer, StackDesigner, conv, pool
from cnnlib.widgets import base
from cnnlib.widgets import cost_table as cost_table_module
from cnnlib.widgets.base import MOST_DATA, Explorer
from explorers import EXAMPLES, example

CHAPTERS = sorted((Path(__file__).parents[1] / "chapters").glob("*.ipynb"))
MOST_SCRIPT = 30_000  # bytes that the code of one explorer may add to a page, compressed


@pytest.fixture(params=EXAMPLES)
def explorer(request):
    return example(request.param)


def on_meta(name):
    with torch.device("meta"):
        return create_model(name)


# --- state ---


CLASSES = [thing for thing in vars(widgets).values() if isinstance(thing, type) and issubclass(thing, Explorer)]


def test_every_explorer_has_an_example():
    made = list(map(example, EXAMPLES))
    assert all(any(isinstance(one, thing) for one in made) for thing in CLASSES)


def test_state_is_small_plain_json(explorer):
    family, = (thing for thing in CLASSES if isinstance(explorer, thing))
    own = {"data", *family.class_own_traits(sync=True)}
    state = {name: getattr(explorer, name) for name in own}
    assert json.loads(json.dumps(state)).keys() == own
    assert len(json.dumps(explorer.data)) <= MOST_DATA
    assert len(own) <= 9  # data, and eight that the controls turn
    assert set(explorer.data["example"]) == own - {"data"}


def test_scripts_are_small_and_load_nothing():
    texts = []
    for one in map(example, EXAMPLES):
        text = one._esm + one._css
        texts.append(text)
        assert "import(" not in text and "import {" not in text and "https:" not in text
        assert "</script" not in text and "<!--" not in text, "would end the page's script"
    assert max(compressed(text) for text in texts) <= MOST_SCRIPT
    for path in CHAPTERS:  # all that one page holds
        there = dict.fromkeys(state["_esm"] + state["_css"] for _, state in explorers_in(path))
        assert compressed("".join(there)) <= 2 * MOST_SCRIPT, path.name
    page = FollowPhotograph("zfnet_cifar", "vgg11_animals")
    assert compressed(page._esm + page._css + json.dumps(page.data)) <= 2 * MOST_SCRIPT  # before anything is asked for


def compressed(text):
    return len(zlib.compress(text.encode()))


@pytest.mark.parametrize("name", EXAMPLES)
def test_repr_is_stable(name):
    first, again = repr(example(name)), repr(EXAMPLES[name]())
    assert first == again and len(first) <= 110 and " at 0x" not in first


def test_large_networks_fit_and_too_many_are_refused(monkeypatch):
    """With longer numbers for what training keeps than any there can be, which need no training to be followed."""
    most = {"kept": dict.fromkeys(("weights", "gradients", "optimizer_state", "saved"), 10**12)}
    with monkeypatch.context() as patch:
        patch.setattr(cost_table_module, "_training", lambda network, size, names: {"saved": [10**9] * len(names), **most})
        size = len(json.dumps(CostTableExplorer("densenet201").data))
    assert size <= MOST_DATA
    monkeypatch.setattr(base, "MOST_DATA", 1000)
    with pytest.raises(ValueError, match="more than 1,000: show fewer or smaller networks"):
        CostTableExplorer("alexnet")


def test_traits_are_live_from_python():
    explorer = ConvolutionArithmetic()
    seen = []
    explorer.observe(lambda change: seen.append(change.new), "kernel_size")
    explorer.kernel_size = 5
    assert seen == [5]
    explorer.set_state({"kernel_size": 6})  # what a view's message does
    assert explorer.kernel_size == 6 and seen == [5, 6]


# --- numbers ---


@pytest.mark.parametrize("name", ["alexnet_227", "googlenet", "mobilenet_v2"])
def test_cost_table_holds_the_table(name):
    explorer = CostTableExplorer(name)
    table = cost_table(on_meta(name), explorer_size(explorer))
    entry, = explorer.data["tables"]
    layers = explorer.data["layers"][entry["layers"]]
    assert [layer[0] for layer in layers] == [row.name for row in table]
    assert sum(layer[3] for layer in layers) == table.total.params
    assert sum(entry["macs"]) == table.total.macs
    assert sum(entry["activations"]) == table.total.activations


def explorer_size(explorer):
    return tuple(int(length) for length in explorer.table.rpartition(" at ")[2].split("x"))


def test_cost_table_of_sizes_shares_the_layers():
    explorer = CostTableExplorer("alexnet", "vgg16", sizes=[(3, 224, 224), (3, 256, 256)])
    assert len(explorer.data["tables"]) == 4 and len(explorer.data["layers"]) == 2


@pytest.mark.parametrize("name", ["alexnet_227", "resnet18", "googlenet"])
def test_receptive_fields_are_those_of_the_analysis(name):
    explorer = ReceptiveFieldExplorer(name)
    fields = receptive_field(on_meta(name), (3, *explorer.data["input"]))
    for layer in explorer.layers:
        field = fields[layer["name"]]
        assert (tuple(layer["size"]), tuple(layer["start"]), tuple(layer["units"])) == (field.size, field.start, field.units)
        for axis, count in enumerate(field.units):
            for i in {0, count // 2, count - 1}:
                first, last = unit_span(layer, axis, i)
                side = field.input_size[axis] - 1
                unit = (i, 0) if axis == 0 else (0, i)
                assert field.pixels(unit)[axis] == (max(first, 0), min(last, side))


def unit_span(layer, axis, i):
    """What receptive_field.js computes."""
    if layer["spans"]:
        return layer["spans"][axis][i]
    first = layer["start"][axis] + i * layer["stride"][axis]
    return first, first + layer["size"][axis] - 1


def test_receptive_field_keeps_convolutions_and_changes_only():
    names = [layer["name"] for layer in ReceptiveFieldExplorer("alexnet_227").layers]
    network = on_meta("alexnet_227")
    windows = [name for name, layer in network.named_modules() if hasattr(layer, "kernel_size")]
    assert names[:len(windows)] == windows and len(names) == len(windows) + 1  # and one that sees everything
    resnet = {layer["name"] for layer in ReceptiveFieldExplorer("resnet50").layers}
    assert {name for name, layer in on_meta("resnet50").named_modules() if isinstance(layer, nn.Conv2d)} <= resnet


def test_any_network_and_any_image(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 2, (3, 5), stride=(1, 2)), nn.ReLU(), nn.MaxPool2d(2))
    Image.new("L", (80, 60), 128).save(tmp_path / "grey.png")
    explorer = ReceptiveFieldExplorer(network, input_size=(1, 20, 30), image=tmp_path / "grey.png")
    assert explorer.layers[0]["size"] == [3, 5] and explorer.layers[0]["stride"] == [1, 2]
    assert explorer.data["image"].startswith("data:image/jpeg;base64,")
    assert ReceptiveFieldExplorer(network, input_size=(1, 20, 30), image=Image.new("RGB", (9, 9))).data["image"]
    assert CostTableExplorer(network, sizes=[(1, 20, 30)]).table == "Sequential at 1x20x30"


# --- wrong arguments ---


WRONG = {
    "unknown model": (lambda: CostTableExplorer("alexnet_228"), "alexnet_228.*alexnet_227"),
    "no model": (lambda: CostTableExplorer(), "models is empty"),
    "no size": (lambda: CostTableExplorer("alexnet", sizes=[]), "sizes is empty"),
    "module without a size": (lambda: CostTableExplorer(nn.ReLU()), "ReLU has no designed input size"),
    "not a model": (lambda: CostTableExplorer(3), "not 3"),
    "the same twice": (lambda: CostTableExplorer("alexnet", "alexnet"), "same title"),
    "size not positive": (lambda: CostTableExplorer("alexnet", sizes=[(3, 0, 224)]), r"\(3, 0, 224\)"),
    "size refused": (lambda: CostTableExplorer("alexnet_227", sizes=[(3, 100, 100)]), "stages|FC6|map"),
    "unknown layer": (lambda: ReceptiveFieldExplorer("alexnet", layer="stem.cnv"), "stem.cnv.*stem.conv"),
    "field's size": (lambda: ReceptiveFieldExplorer("alexnet", input_size=(3, 224)), r"\(3, 224\)"),
    "image missing": (lambda: ReceptiveFieldExplorer("alexnet", image="no such file.jpg"), "no such file.jpg"),
    "image of a wrong type": (lambda: ReceptiveFieldExplorer("alexnet", image=3), "not int"),
    "kernel 0": (lambda: ConvolutionArithmetic(kernel_size=0), "kernel_size=0"),
    "unknown mode": (lambda: ConvolutionArithmetic(mode="blur"), "mode='blur'.*'transposed'"),
    "number of weights": (lambda: ConvolutionArithmetic(mode="convolution", weights=[1] * 9), "weights holds 9 numbers.*need 27"),
    "unit": (lambda: ConvolutionArithmetic(row=-1), "row=-1"),
    "kind of normalization": (lambda: NormalizationAxes("weight"), "kind='weight'.*'group'"),
    "groups of channels": (lambda: NormalizationAxes("group", groups=3), "groups=3; choose one of 1, 2, 4"),
    "unknown live network": (lambda: FollowPhotograph("vgg99"), "network='vgg99'.*'zfnet_cifar'"),
    "no live network": (lambda: FollowPhotograph(), "networks is empty"),
    "photograph": (lambda: FollowPhotograph("zfnet_cifar", photograph="dog"), "photograph='dog'.*'chelsea'"),
    "kernel of a wrong type": (lambda: ConvolutionArithmetic(kernel_size=3.5), "kernel_size=3.5"),
    "negative padding": (lambda: ConvolutionArithmetic(padding=-1), "padding=-1"),
    "empty stack": (lambda: StackDesigner([]), "0 layers"),
    "unknown preset": (lambda: StackDesigner("five 3x3"), "five 3x3.*three 3x3"),
    "kernel in a stack": (lambda: StackDesigner([conv(8, 0)]), r"layers\[0\]\['kernel_size'\]=0"),
    "stack's input": (lambda: StackDesigner(input_size=(3, -1)), "height=-1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name, value", [("by", "block"), ("table", "alexnet"), ("sort", "name"), ("memory", "KB")])
def test_wrong_traits_are_named(name, value):
    explorer = CostTableExplorer("alexnet")
    with pytest.raises((ValueError, traitlets.TraitError), match=f"{name}='{value}'"):
        setattr(explorer, name, value)


# --- formulas that stand in both languages ---


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """`node(file, calls)`: the results of functions in the module of the explorer that `widgets/<file>.py` defines."""
    path = shutil.which("node")
    if not path:
        message = "Node is not there: install it (Debian: apt-get install nodejs)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    folder, started = tmp_path_factory.mktemp("modules"), {}
    scripts = {thing.__module__.rpartition(".")[2]: thing._esm for thing in CLASSES}

    def start(name):
        file = folder / f"{name}.mjs"
        file.write_text(scripts[name], encoding="utf-8")
        script = Path(__file__).with_name("js") / "run.mjs"
        return subprocess.Popen([path, str(script), str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(name, calls):
        if name not in started:
            started[name] = start(name)
        process = started[name]
        process.stdin.write(json.dumps(calls) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or '{"error": "Node has ended"}')
        assert "error" not in answer, answer["error"]
        return answer["results"]

    yield run
    for process in started.values():
        process.communicate()


def test_output_size_equals_pytorch(node):
    grid = list(itertools.product(range(1, 16), (1, 2, 3, 5, 7), (1, 2, 3, 4), (0, 1, 3), (1, 2, 3)))
    sizes = node("convolution", [["outputSize", *setting] for setting in grid])
    for (length, kernel, stride, padding, dilation), size in zip(grid, sizes, strict=True):
        if dilation * (kernel - 1) + 1 > length + 2 * padding:
            assert size < 1
        else:
            layer = nn.Conv1d(1, 1, kernel, stride, padding, dilation, device="meta")
            assert layer(torch.empty(1, 1, length, device="meta")).shape[-1] == size


SETTINGS = [dict(zip(("input_size", "kernel_size", "stride", "padding", "dilation"), row))
            for row in itertools.product((5, 8), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2))]


@pytest.mark.parametrize("mode", ["convolution", "transposed", "max", "average"])
def test_values_of_windows_equal_pytorch(node, mode):
    """Every unit's values, from every tap, for kernels with different weights at every place."""
    torch.manual_seed(0)
    functions = {"convolution": lambda x, w, s: F.conv2d(x, w, None, s["stride"], s["padding"], s["dilation"]),
                 "transposed": lambda x, w, s: F.conv_transpose2d(x, w.transpose(0, 1), None, s["stride"], s["padding"], dilation=s["dilation"]),
                 "max": lambda x, w, s: F.max_pool2d(x, s["kernel_size"], s["stride"], s["padding"], s["dilation"]),
                 "average": lambda x, w, s: F.avg_pool2d(x, s["kernel_size"], s["stride"], s["padding"])}
    calls, expected = [], []
    for setting in SETTINGS:
        kernel = setting["kernel_size"]
        if mode in ("max", "average") and (2 * setting["padding"] > kernel or mode == "average" and setting["dilation"] > 1):
            continue
        pixels, weight = torch.rand(1, 3, *[setting["input_size"]] * 2).double(), torch.randn(1, 3, kernel, kernel).double()
        try:
            result = functions[mode](pixels, weight, setting)[0]
        except RuntimeError:
            assert node("convolution", [["lengthIn", mode, setting]])[0] < 1
            continue
        calls.append(["lengthIn", mode, setting])
        expected.append(result.shape[-1])
        for row, column in {(0, 0), (result.shape[1] - 1, result.shape[2] // 2), (result.shape[1] // 2, 0)}:
            calls.append(["unitValues", mode, pixels[0].flatten(1).tolist(), weight.flatten().tolist(), setting, row, column])
            expected.append(result[:, row, column].tolist())
    assert len(calls) > 60
    for found, truth in zip(node("convolution", calls), expected, strict=True):
        if isinstance(truth, int):
            assert found == truth
        else:
            assert (found if len(truth) == 3 else [sum(found)]) == pytest.approx(truth, abs=1e-9)


def test_neighbouring_windows_share_the_taps_that_fall_together(node):
    grid = list(itertools.product(range(1, 7), range(1, 8), range(1, 5)))
    expected = [len({j * d for j in range(f)} & {j * d + s for j in range(f)}) for f, s, d in grid]
    assert node("convolution", [["sharedColumns", *row] for row in grid]) == expected


def test_named_filters(node):
    edges, mean, across = node("convolution", [["filterWeights", name, 3] for name in ("vertical edges", "mean", "horizontal edges")])
    assert edges == [-1, 0, 1] * 9 and across == [-1, -1, -1, 0, 0, 0, 1, 1, 1] * 3 and sum(mean) == pytest.approx(1, abs=0.01)


def test_normalization_equals_pytorch(node):
    values = NormalizationAxes().data["values"]
    x = torch.tensor(values, dtype=torch.double)
    expected = {("batch", 2): F.batch_norm(x, None, None, training=True), ("layer", 2): F.layer_norm(x, x.shape[1:]),
                ("instance", 2): F.instance_norm(x), **{("group", count): F.group_norm(x, count) for count in (1, 2, 4)}}
    places = list(itertools.product(range(3), range(4), range(6)))
    for (kind, groups), truth in expected.items():
        found = node("normalization", [["normalize", values, kind, groups, *place] for place in places])
        assert [one["result"] for one in found] == pytest.approx(truth.flatten().tolist(), abs=1e-6)


def test_terms_of_a_sum_are_ordered_by_what_they_give(node):
    terms = [{"value": value, "weight": weight} for value, weight in ((1, 0.5), (2, -3), (1, 1), (0, 9))]
    alone, kernels = node("follow", [["groupedTerms", {"terms": terms}], ["groupedTerms", {"terms": terms, "kernel": [1, 2], "channels": [7, 8]}]])
    assert [one["sum"] for one in alone] == [-6, 1, 0.5, 0]
    assert [(one["channel"], one["sum"], len(one["terms"])) for one in kernels] == [(7, -5.5, 2), (8, 1, 2)]


def test_layers_have_the_names_of_the_field(node):
    nodes = [{"op": "conv", "groups": 1, "shape": [1, 8]}, {"op": "conv", "groups": 8, "shape": [1, 8]}, {"op": "conv", "groups": 2, "shape": [1, 8]},
             {"op": "act", "kind": "relu"}, {"op": "act", "kind": "tanh"}, {"op": "binary", "kind": "add"}, {"op": "maxpool"}]
    assert node("follow", [["nameOf", one] for one in nodes]) == ["convolution", "depthwise convolution", "convolution in 2 groups", "ReLU", "tanh",
                                                                  "addition", "max pooling"]


def test_parameters_and_macs_equal_the_analysis(node):
    grid = list(itertools.product((1, 3, 8), (4, 12), (1, 2, 3, 5), (True, False), (1, 2)))
    grid = [row for row in grid if row[0] % row[4] == 0]
    calls = [["convParams", *row] for row in grid]
    calls += [["convMacs", inputs, outputs, kernel, 10 - kernel + 1, 8 - kernel + 1, groups]
              for inputs, outputs, kernel, _, groups in grid]
    results = node("stack", calls)
    for i, (inputs, outputs, kernel, bias, groups) in enumerate(grid):
        layer = nn.Conv2d(inputs, outputs, kernel, bias=bias, groups=groups, device="meta")
        total = cost_table(layer, (inputs, 10, 8)).total
        assert (results[i], results[len(grid) + i]) == (total.params, total.macs)


def network_of(layers, channels, bias):
    modules = []
    for layer in layers:
        if layer["kind"] == "conv":
            modules.append(nn.Conv2d(channels, layer["channels"], layer["kernel_size"], layer["stride"],
                                     layer["padding"], bias=bias, device="meta"))
            channels = layer["channels"]
        else:
            modules.append(nn.MaxPool2d(layer["kernel_size"], layer["stride"], layer["padding"]))
    return nn.Sequential(*modules)


def random_stack(rng):
    layers = []
    for _ in range(rng.randint(1, 5)):
        kernel = rng.randint(1, 5)
        if rng.random() < 0.6:
            layers.append(conv(rng.choice((1, 4, 6)), kernel, rng.randint(1, 3), padding=rng.randint(0, 2)))
        else:
            layers.append(pool(kernel, rng.randint(1, 3), padding=rng.randint(0, kernel // 2)))
    return layers


def test_stacks_equal_the_analysis(node):
    rng = random.Random(0)
    cases = [(random_stack(rng), [rng.choice((1, 3)), rng.randint(40, 90)], rng.random() < 0.5) for _ in range(60)]
    fitting = 0
    for (layers, (channels, side), bias), rows in zip(cases, node("stack", [["stackRows", *case] for case in cases])):
        if "wrong" in rows[-1]:
            with pytest.raises(RuntimeError):
                network_of(layers, channels, bias)(torch.empty(1, channels, side, side, device="meta"))
            continue
        fitting += 1
        network = network_of(layers, channels, bias)
        table = cost_table(network, (channels, side, side))
        fields = receptive_field(network, (channels, side, side))
        for row, expected, field in zip(rows, table, fields.values(), strict=True):
            assert (row["channels"], row["output"], row["output"]) == expected.output_shape
            assert (row["params"], row["macs"]) == (expected.params, expected.macs)
            if row["output"] > 1 and max(field.unaligned, default=None) is None:
                seen = row["field"]
                assert [seen["size"]] * 2 == list(field.size) and [seen["start"]] * 2 == list(field.start)
                assert [seen["stride"]] * 2 == list(field.stride)
    assert fitting > 20


def test_kernel_stacks_of_courses(node):
    width = 64
    three, two = node("stack", [["compareWithOne", [conv(width, 3, padding=1)] * count, [width, 56], False] for count in (3, 2)])
    assert (three["stack"]["size"], two["stack"]["size"]) == (7, 5)
    assert three["stack"]["params"] == 3 * 9 * width**2 and three["one"]["params"] == 49 * width**2
    assert two["stack"]["params"] == 2 * 9 * width**2 and two["one"]["params"] == 25 * width**2


def test_cost_rows_by_stage_filter_and_order(node):
    explorer = CostTableExplorer("alexnet_227")
    entry, = explorer.data["tables"]
    table = cost_table(on_meta("alexnet_227"), (3, 227, 227))
    layers, stages = node("cost_table", [["tableRows", explorer.data, entry, by] for by in ("layer", "stage")])
    assert [(row["name"], row["params"], row["macs"], row["activations"]) for row in stages] == \
        [(row.stage, row.params, row.macs, row.activations) for row in table.stages()]
    found, = node("cost_table", [["arrange", layers, "CONV stages", "-params"]])
    expected = sorted((row for row in table if row.kind == "Conv2d" and "stages" in row.name), key=lambda row: -row.params)
    assert [row["params"] for row in found] == [row.params for row in expected]
    text, = node("cost_table", [["csvText", ["a", "b"], [["x, y", 1], ['"', 2]]]])
    assert text == 'a,b\n"x, y",1\n"""",2\n'


# --- what the chapters hold ---


def explorers_in(path):
    """Name of the class and stored state of each explorer of a chapter."""
    stored = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("widgets", {})
    for entry in stored.get("application/vnd.jupyter.widget-state+json", {}).get("state", {}).values():
        names = entry["state"].get("_anywidget_id", "").split(".")
        if names[:2] == ["cnnlib", "widgets"]:
            yield names[-1], entry["state"]


def test_chapters_hold_the_present_scripts():
    """A page runs the script that its notebook stored: after a change here, `make chapters` must renew them."""
    stale = []
    for path in CHAPTERS:
        for name, state in explorers_in(path):
            explorer = getattr(widgets, name)
            if (state["_esm"], state["_css"]) != (explorer._esm, explorer._css):
                stale.append(f"{path.name}: {name}")
    assert stale == []
