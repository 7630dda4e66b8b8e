"""Live networks: the page's engine against PyTorch, number by number, run by Node."""

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn

from cnnlib import create_model, list_models
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.registry import find_variant
from cnnlib.widgets.base import STATIC
from cnnlib.widgets.live import _Graph, export, rounded, write

TOLERANCE = 2e-6  # of the largest score, beside what PyTorch's own single precision costs; the engine sums 128 terms at a time in single precision
PLAIN = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}


class Engine:
    """`static/engine.js` under Node: `engine([name, *arguments], ...)` gives the results of the calls, in order."""

    def __init__(self, folder):
        self.folder, self.options = folder, []

    def __call__(self, *calls):
        done = subprocess.run([NODE, str(Path(__file__).with_name("js") / "live.mjs"), str(self.script()), *self.options],
                              input=json.dumps(calls), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return [call["result"] for call in json.loads(done.stdout)]

    def script(self):
        return shutil.copy(STATIC / "engine.js", self.folder / "engine.mjs")

    def open(self, model, size, image, classes, **options):
        """The calls that load an exported network and run it on an image of values from 0 to 1."""
        plain = {name: numbers[:size[0]] for name, numbers in PLAIN.items()}
        write(self.folder, "network", model, size, classes=[str(i) for i in range(classes)], **{**plain, "precision": "float32", **options})
        image.contiguous().numpy().tofile(self.folder / "image.bin")
        self.image = {"floats": str(self.folder / "image.bin")}
        self.graph = json.loads((self.folder / "network.json").read_text())
        return [["load", {"json": str(self.folder / "network.json")}, {"file": str(self.folder / "network.safetensors")}],
                ["run", self.image]]


NODE = shutil.which("node")


@pytest.fixture
def engine(tmp_path):
    if not NODE:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Node is not there: install it (Debian: apt-get install nodejs)")
    return Engine(tmp_path)


def lively(model):
    """In evaluation mode, with statistics and shifts that are not the neutral ones of a fresh network."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.7, 1.3)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
        else:
            for name, parameter in module.named_parameters(recurse=False):
                if name == "bias" or not parameter.any():  # what begins at zero would hide the rest of its branch
                    nn.init.normal_(parameter, 0, 0.05)
    return model.eval()


def normalized(image):
    mean, std = (torch.tensor(PLAIN[name][:len(image)]).view(-1, 1, 1) for name in ("mean", "std"))
    return ((image - mean) / std)[None]


def compare(engine, model, size):
    """Scores of the page beside those in double precision: within TOLERANCE and the error of PyTorch's single precision."""
    image = torch.rand(size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single = model(normalized(image))[0]
        exact = copy.deepcopy(model).double()(normalized(image).double())[0]
    calls = engine.open(model, size, image, len(exact))
    _, probabilities, scores = engine(*calls, ["value", len(engine.graph["nodes"]) - 1])
    error, usual = ((torch.as_tensor(found).double() - exact).abs().max() / exact.abs().max() for found in (scores, single))
    assert error <= TOLERANCE + usual, f"{error:.1e} of the largest score; PyTorch's single precision is {usual:.1e} away"
    assert torch.allclose(torch.tensor(probabilities).double(), exact.softmax(0), atol=1e-5)


SMALL = [name for name in list_models() if name.endswith(("_cifar", "_cifar_bn")) and "step" not in name]


@pytest.mark.parametrize("name", ["alexnet_cifar", "convnext_cifar", "densenet_cifar", "mobilenet_v2_cifar", "efficientnet_b0_cifar", "fractalnet_cifar",
                                  "googlenet_cifar", "mobilenet_v1_cifar", "mobilenet_v3_small_cifar", "nasnet_cifar", "preresnet20", "regnet_y_cifar",
                                  "resnet20", "shufflenet_v2_cifar", "squeezenet_cifar", "vgg11_cifar", "zfnet_cifar",
                                  "lenet5_cifar", "repvgg_cifar", "nfnet_cifar", "mobilenet_v4_conv_small_cifar"])
def test_networks_equal_pytorch(engine, name):
    torch.manual_seed(0)
    compare(engine, lively(create_model(name)), find_variant(name).input_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_network_equals_pytorch(engine, name):
    """Those of at most 70 million parameters and 4 billion multiply-adds; of the others that every operation is known.

    Attention and a filter that is no weight are refused, by name.
    """
    size = find_variant(name).input_size
    with torch.device("meta"):
        model = create_model(name).eval()
    if "hybrid" in name:
        with pytest.raises(ValueError, match=r"\(MobileAttention\): the engine of the page lacks bmm"):
            _Graph(model, size)
        return
    if any(type(module).__name__ == "BlurPool" for module in model.modules()):
        with pytest.raises(ValueError, match=r"\(BlurPool\): the engine of the page lacks tensors that are no parameter"):
            _Graph(model, size)
        return
    total = cost_table(model, size).total
    if total.params > 70e6 or total.macs > 4e9:
        known = re.findall(r"[\w]+", re.search(r"const OPERATIONS = \{(.*?)\n  \};", (STATIC / "engine.js").read_text(), re.S)[1])
        assert {node["op"] for node in _Graph(model, size).nodes[1:]} <= set(known)
        return
    torch.manual_seed(0)
    model = lively(create_model(name))
    with torch.no_grad():
        while not model(torch.rand(1, *size)).abs().max() < 1e6:  # a signal that explodes on its way through a thousand layers
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.weight *= 0.8
    compare(engine, model, size)


class Every(nn.Module):
    """Operations that no network of the fast tests has, or has in another form."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 3), bias=False)
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12, stride=(2, 1), padding=(0, 1))
        self.deep = nn.Conv2d(12, 24, 3, groups=12, stride=2, padding=1)
        self.late = nn.BatchNorm2d(24)
        self.slim = nn.Conv2d(24, 6, 1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6))
        self.shift = nn.Parameter(torch.linspace(-0.2, 0.4, 6).view(6, 1, 1))
        self.lrn = nn.LocalResponseNorm(4, alpha=0.5, beta=0.6, k=1.5)
        self.group = nn.GroupNorm(3, 24, eps=0.1)
        self.leaky = nn.LeakyReLU(0.2)
        self.head = nn.Linear(6 * 4 + 6, 5)

    def forward(self, x):
        x = F.relu6(self.norm(self.first(x)) * 3)
        x = self.depthwise(self.grouped(x)) - 0.25
        x = F.avg_pool2d(F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True), 2, 1, padding=1, count_include_pad=False)
        x = self.leaky(self.group(self.late(F.relu(self.deep(x)))) - 0.3)
        x = self.lrn(self.slim(F.pad(x, (1, 0, -1, 2), value=0.5)))
        x = F.pad(x, (2, 1, 0, 2), mode="reflect")
        x = torch.addcmul(self.shift, self.scale.view(6, 1, 1), x / torch.linalg.vector_norm(x, dim=(1, 3), keepdim=True), value=0.75)
        x = torch.tanh(x * self.scale.softmax(0).view(6, 1, 1) * 4)
        x = F.pad(x.transpose(1, 2)[:, ::2].transpose(1, 2), (0, 1)) / (2 + x.mean((2, 3), keepdim=True))
        x = x * F.interpolate(x[..., ::2], x.shape[2:])
        gate = (F.hardsigmoid(x) + F.hardswish(x)).mean((2, 3))
        x = F.adaptive_avg_pool2d(x, (2, 2)) * torch.sigmoid(x.mean(dim=(2, 3), keepdim=True))
        return self.head(torch.cat([x.flatten(1), gate.softmax(1)], 1))


def test_every_operation_equals_pytorch(engine):
    torch.manual_seed(0)
    compare(engine, lively(Every()), (3, 21, 18))


def test_without_webassembly_it_is_the_same(engine):
    """An old browser, or one that may not: plain JavaScript, which sums in double precision."""
    torch.manual_seed(0)
    engine.options = ["plain"]
    compare(engine, lively(Every()), (3, 21, 18))
    compare(engine, lively(create_model("resnet20")), (3, 32, 32))


class Shared(nn.Module):
    """A convolution with a bias before a norm, and two whose output is read beside their norm, of one by way of a concatenation of it alone."""

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.second, self.second_norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        self.third, self.third_norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.second(self.first_norm(self.first(x)))
        x = self.third(self.second_norm(x) + x)
        return torch.cat([x, self.third_norm(torch.cat([x], 1))], 1).mean((2, 3))


def test_a_convolution_with_bias_keeps_it(engine):
    torch.manual_seed(0)
    model = lively(Shared())
    model.first_norm.running_var.fill_(1e-4)  # where the epsilon counts
    compare(engine, model, (3, 12, 12))
    assert [node["op"] for node in engine.graph["nodes"]] == ["input", "conv", "conv", "affine", "binary", "conv", "affine", "cat", "mean"]


def test_every_element_is_explained(engine):
    """The sum over the terms is the value, for elements of every operation; a term's value is what stands there."""
    torch.manual_seed(0)
    model, size = lively(Every()), (3, 21, 18)
    calls = engine.open(model, size, torch.rand(size), 5)
    nodes = engine.graph["nodes"]
    places = [(i, at) for i, node in enumerate(nodes) for at in {0, 1, count(node) // 2, count(node) - 1} if at < count(node)]
    _, _, *found = engine(*calls, *(["value", i] for i in range(len(nodes))), *(["explain", *place] for place in places))
    values, told = found[:len(nodes)], found[len(nodes):]
    for (i, at), answer in zip(places, told, strict=True):
        result = values[i][at]
        assert answer["result"] == result
        for term in answer["terms"]:
            assert term["at"] == -1 or term["value"] == values[term["from"]][term["at"]]
        assert (answer["rule"] == "input") == (i == 0)
        if answer["rule"] == "sum":
            total = answer["bias"] + sum(term["value"] * term["weight"] for term in answer["terms"])
            assert total == pytest.approx(result, abs=1e-5), nodes[i]
        elif answer["rule"] == "max":
            assert max(term["value"] for term in answer["terms"]) == result
    kinds = {node["op"] for node in nodes[1:]}
    assert kinds >= {"conv", "linear", "maxpool", "avgpool", "adaptive", "act", "affine", "binary", "cat", "slice", "pad", "mean", "lrn", "softmax", "norm", "gather"}


def test_a_map_is_the_sum_of_what_its_input_channels_add(engine):
    torch.manual_seed(0)
    model, size = lively(Every()), (3, 21, 18)
    calls = engine.open(model, size, torch.rand(size), 5)
    nodes = engine.graph["nodes"]
    convolutions = [(i, channel) for i, node in enumerate(nodes) if node["op"] == "conv" for channel in (0, node["shape"][1] - 1)]
    for i, channel in convolutions:
        node, inputs = nodes[i], nodes[nodes[i]["from"][0]]["shape"][1] // nodes[i]["groups"]
        first = channel // (node["shape"][1] // node["groups"]) * inputs
        _, _, value, told, *parts = engine(*calls, ["value", i], ["explain", i, channel * count(node) // node["shape"][1]],
                                           *(["part", i, channel, k] for k in range(first, first + inputs)))
        value = torch.tensor(value).view(node["shape"])[0, channel].flatten()
        assert torch.allclose(torch.tensor(parts).sum(0) + told["bias"], value, atol=1e-5)
    assert {nodes[i]["groups"] for i, _ in convolutions} == {1, 4, 12}


def test_a_canvas_bytes_are_its_pixels(engine):
    pixels = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    opaque = torch.cat([pixels, torch.full((1, 20, 20), 255, dtype=torch.uint8)])
    found, = engine(["resizeBytes", opaque.permute(1, 2, 0).flatten().tolist(), 20, 3, 8, 10])
    expected = F.interpolate(pixels[None] / 255, (8, 10), mode="bilinear", antialias=True)
    assert torch.allclose(torch.tensor(found), expected.flatten(), atol=1e-6)


def test_every_number_of_half_precision(engine):
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    (engine.folder / "half.safetensors").write_bytes(save({"w": bits.view(torch.half).view(256, 256)}))
    found = subprocess.run([NODE, "-e", f"""import({str(engine.script())!r}).then(({{ engine }}) => {{
        const own = engine(), bytes = require("fs").readFileSync({str(engine.folder / "half.safetensors")!r});
        const weights = own.readWeights(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
        process.stdout.write(new Uint8Array(weights.w.buffer)); }})"""], capture_output=True, check=True).stdout
    assert torch.equal(torch.frombuffer(bytearray(found), dtype=torch.float).nan_to_num(7), bits.view(torch.half).float().nan_to_num(7))


def count(node):
    return torch.Size(node["shape"]).numel()


@pytest.mark.parametrize("name", ["alexnet_cifar", "resnet20", "convnext_cifar", "densenet_cifar", "mobilenet_v2_cifar", "shufflenet_v2_cifar", "nasnet_cifar"])
def test_fields_are_those_of_the_analysis(engine, name):
    size = find_variant(name).input_size
    model = create_model(name).eval()
    calls = engine.open(model, size, torch.rand(size), 10)
    fields, wanted = receptive_field(model, size), []
    for i, node in enumerate(engine.graph["nodes"]):
        layer = node.get("folded", node["layer"])
        if node["op"] == "conv" and layer in fields:
            _, _, height, width = node["shape"]
            wanted += [(i, fields[layer], row, column, width) for row, column in {(0, 0), (height - 1, width // 2)}]
    _, _, *found = engine(*calls, *(["field", i, row * width + column] for i, _, row, column, width in wanted))
    assert len(wanted) > 8
    for (i, field, row, column, _), spans in zip(wanted, found, strict=True):
        inside = tuple((max(0, first), min(last, length - 1)) for (first, last), length in zip(spans, size[1:]))
        assert inside == tuple(map(tuple, field.pixels((row, column)))), engine.graph["nodes"][i]["layer"]


@pytest.mark.parametrize("name", ["vgg11_cifar_bn", "resnet20", "convnext_cifar", "mobilenet_v2_cifar", "squeezenet_cifar"])
def test_gradients_and_grad_cam_equal_autograd(engine, name):
    torch.manual_seed(0)
    model, size = lively(create_model(name)), find_variant(name).input_size
    image = torch.rand(size)
    calls = engine.open(model, size, image, 10)
    _, _, node, cam = engine(*calls, ["camNode"], ["gradCam", 3])
    gradient, value = engine(*calls, ["gradient", 3, node], ["value", node])[2:]
    assert cam["node"] == node
    # The maps, found in the network by their values, and the gradient of the score there.
    caught = []
    hooks = [module.register_forward_hook(lambda module, args, output: caught.append(output)) for module in model.modules()]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    score = model(normalized(image))[0, 3]
    for hook in hooks:
        hook.remove()
    maps = next(output for output in caught if output.numel() == len(value)
                and torch.allclose(output.flatten(), torch.tensor(value), rtol=1e-4, atol=1e-6 * max(map(abs, value))))
    expected, = torch.autograd.grad(score, maps)
    assert torch.allclose(torch.tensor(gradient), expected.flatten(), rtol=1e-3, atol=1e-5 * expected.abs().max().item())
    weighted = (expected.mean((2, 3), keepdim=True) * maps).sum(1).relu().flatten()
    assert torch.allclose(torch.tensor(cam["map"], dtype=torch.float32), weighted, rtol=1e-3, atol=1e-5 * weighted.abs().max().item() + 1e-9)


def test_what_is_switched_off_is_zero(engine):
    torch.manual_seed(0)
    model, size = lively(create_model("resnet20")), (3, 32, 32)
    image = torch.rand(size)
    calls = engine.open(model, size, image, 10)
    nodes = engine.graph["nodes"]
    add = next(i for i, node in enumerate(nodes) if node["op"] == "binary")
    layer = nodes[add]["layer"]
    _, _, no_filter, without_branch, without_shortcut, both = engine(
        *calls, *(["run", engine.image, off] for off in (["1:2"], [f"{add}<0"], [f"{add}<1"], ["1:2", f"{add}<1"])))

    def changed(hooks):
        handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks]
        with torch.no_grad():
            result = model(normalized(image))[0].softmax(0)
        for handle in handles:
            handle.remove()
        return pytest.approx(result.tolist(), abs=1e-5)

    stem = nodes[1]["folded"]

    def no_second(module, args, output):
        output = output.clone()
        output[:, 2] = 0
        return output

    block = dict(model.named_modules())[layer]
    inner = nodes[nodes[add]["from"][0]].get("folded")
    zero = (inner, lambda module, args, output: torch.zeros_like(output))
    alone = (layer, lambda module, args, output: torch.relu(module.branch(args[0])) if hasattr(module, "branch") else output)
    assert no_filter == changed([(stem, no_second)])
    assert without_branch == changed([zero])
    assert hasattr(block, "branch") and without_shortcut == changed([alone])
    assert both == changed([(stem, no_second), alone])


def test_occlusion_hides_what_it_says(engine):
    torch.manual_seed(0)
    model, size = lively(create_model("zfnet_cifar")), (3, 32, 32)
    image = torch.rand(size)
    calls = engine.open(model, size, image, 10)
    found = engine(*calls, ["occlusion", engine.image, 4, 4])[2]
    expected = []
    for i in range(4):
        for j in range(4):
            hidden = image.clone()
            rows, columns = (slice(max(0, 8 * k - 4), 8 * k + 12) for k in (i, j))
            hidden[:, rows, columns] = torch.tensor(PLAIN["mean"]).view(3, 1, 1)
            with torch.no_grad():
                expected.append(model(normalized(hidden))[0].softmax(0)[4].item())
    assert (found["height"], found["width"]) == (4, 4)
    assert found["map"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sizes", [(40, 56, 32, 32), (32, 32, 32, 32), (10, 7, 24, 30), (100, 33, 7, 64)])
def test_pictures_are_resized_as_pytorch_does(engine, sizes):
    height, width, to_height, to_width = sizes
    image = torch.rand(1, 3, height, width)
    image.numpy().tofile(engine.folder / "image.bin")
    found, = engine(["resize", {"floats": str(engine.folder / "image.bin")}, 3, *sizes])
    expected = F.interpolate(image, (to_height, to_width), mode="bilinear", antialias=True)
    assert torch.allclose(torch.tensor(found), expected.flatten(), atol=1e-5)


@pytest.mark.parametrize("precision, error", [("float16", 0.01), ("int8", 0.1)])
def test_precision_of_weights(engine, precision, error):
    """The file is as small as promised, and the scores are those of a network whose weights were rounded."""
    torch.manual_seed(0)
    model, size = create_model("vgg11_cifar").eval(), (3, 32, 32)
    image = torch.rand(size)
    with torch.no_grad():
        expected = model(normalized(image))[0]
    calls = engine.open(model, size, image, 10, precision=precision)
    scores = torch.tensor(engine(*calls, ["value", len(engine.graph["nodes"]) - 1])[2])
    bytes_each = {"float16": 2, "int8": 1}[precision]
    params = sum(parameter.numel() for parameter in model.parameters())
    assert (engine.folder / "network.safetensors").stat().st_size < 1.05 * bytes_each * params + 20_000
    difference = (scores - expected).abs().max() / expected.abs().max()
    assert 1e-6 < difference < error
    stored = load((engine.folder / "network.safetensors").read_bytes())
    weights = {name: tensor for name, tensor in stored.items() if name.endswith("weight")}
    if precision == "int8":
        weights = {name: tensor * stored[f"{name}.scale"].view(-1, *[1] * (tensor.dim() - 1)) for name, tensor in weights.items()}
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        for layer, weight in zip(layers, [weights[node["weight"]] for node in engine.graph["nodes"] if "weight" in node], strict=True):
            assert torch.equal(rounded(layer.weight, precision), weight.view_as(layer.weight).float())
            layer.weight.copy_(weight.view_as(layer.weight))
        expected = model(normalized(image))[0]
    assert (scores - expected).abs().max() <= TOLERANCE * expected.abs().max()


class Refused(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 1)
        self.function = function
        self.register_buffer("held", torch.ones(4, 1, 1))
        self.register_buffer("same", torch.ones(4, 1, 1))

    def forward(self, x):
        x = self.inner(x)
        return (self.function(x) if isinstance(self.function, nn.Module) else self.function(self, x)).mean((2, 3))


REFUSED = {
    "transposed convolution": (lambda module, x: F.conv_transpose2d(x, torch.ones(4, 4, 2, 2)), "transposed|no parameter"),
    "an unknown operation": (lambda module, x: x.cumsum(2), "the model itself|Refused.*cumsum|cumsum"),
    "an ambiguous buffer": (lambda module, x: x * module.held, r"tensors that are no parameter, here one of shape \(4, 1, 1\)"),
    "statistics of the sample": (lambda module, x: F.batch_norm(x, None, None, training=True), "batch normalization without running statistics"),
    "gelu by tanh": (nn.GELU(approximate="tanh"), "gelu with approximate='tanh'"),
    "gelu by tanh, as a function": (lambda module, x: F.gelu(x, approximate="tanh"), "gelu with approximate='tanh'"),
    "a norm of order one": (lambda module, x: x / torch.linalg.vector_norm(x, 1, dim=1, keepdim=True), "a norm of order 1"),
    "softmax over channels": (lambda module, x: x.softmax(1), "softmax over axis 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_engine_lacks_is_refused_by_name(case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        export(Refused(function).eval(), (3, 8, 8), classes=list("abcd"), **PLAIN)


def test_wrong_arguments_are_named():
    model = create_model("zfnet_cifar").eval()
    size, classes = (3, 32, 32), list("0123456789")
    with pytest.raises(ValueError, match="precision='int4'.*'int8'"):
        export(model, size, classes=classes, precision="int4", **PLAIN)
    with pytest.raises(ValueError, match=r"shape \(1, 10\).*3 classes"):
        export(model, size, classes=["a", "b", "c"], **PLAIN)
    with pytest.raises(ValueError, match="1 and 3 numbers; the input has 3 channels"):
        export(model, size, classes=classes, mean=[0.5], std=PLAIN["std"])
    with pytest.raises(ValueError, match="training mode"):
        export(model.train(), size, classes=classes, **PLAIN)
