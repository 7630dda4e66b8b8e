"""Cost tables: PyTorch's own counter, tables derived by hand, awkward networks, and what happens to bad input."""

import copy
import gc
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from analysis_graphs import random_network
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cnnlib
from cnnlib.analysis import AnalysisError, Device, cost_table
from cnnlib.analysis.cost import CostTable, Row
from cnnlib.analysis.trace import trace
from libraries import timm_or_skip, torchvision
from zoo import TABLE, count_macs, count_params, macs_and_shape, on_meta, smallest_of_each_kind


def counted_macs(model, *inputs):
    """PyTorch's counter, on the meta device since it knows no attention kernel of the CPU."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        copy.deepcopy(model).to("meta")(*(tensor.to("meta") for tensor in inputs))
    return counter.get_total_flops() // 2


def assert_paths_agree(model, size, **options):
    """The closed forms give the rows that running every operation gives."""
    fast, general = (CostTable(trace(model, size, fast=fast, **options)) for fast in (True, False))
    assert fast.rows == general.rows
    assert fast.peak_bytes == general.peak_bytes
    return fast


# PyTorch's own counter


NAMES = cnnlib.list_models()
KINDS = smallest_of_each_kind(NAMES)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in NAMES])
def test_zoo_totals_equal_pytorchs_counter(name):
    """The smallest network of each kind; the others, whose rows differ in numbers alone, are slow, and their totals in the
    table of all networks, which the same analysis made, are compared below.
    """
    table = cost_table(on_meta(name).eval(), cnnlib.registry.find_variant(name).input_size)
    assert table.total.macs == macs_and_shape(name)[0]  # counted once for all files of tests
    assert table.total.params == count_params(on_meta(name))


@pytest.mark.parametrize("name", TABLE)
def test_totals_in_the_table_equal_pytorchs_counter(name):
    assert (int(TABLE[name]["macs"]), int(TABLE[name]["params"])) == (macs_and_shape(name)[0], count_params(on_meta(name)))


FIRST = """alexnet convnext_base densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5 mobilenet_v2 regnet_x_16gf
    resnet101 resnext101_32x8d shufflenet_v2_x0_5 squeezenet1_0 swin_b vgg11 vit_b_16 wide_resnet101_2""".split()  # of torchvision's families


def pytest_generate_tests(metafunc):  # names that take an import of torchvision, for a slow test alone
    if metafunc.function is test_all_of_torchvisions_totals_equal_pytorchs_counter:
        metafunc.parametrize("name", sorted(set(torchvision.models.list_models(torchvision.models)) - set(FIRST)))


@pytest.mark.parametrize("name", FIRST)
def test_torchvision_totals_equal_pytorchs_counter(name):
    try:
        with torch.device("meta"):
            model = torchvision.models.get_model(name).eval()
    except NotImplementedError:  # RegNet computes its widths with tensors
        model = torchvision.models.get_model(name).eval().to("meta")
    table = assert_paths_agree(model, (3, 224, 224))
    assert table.total.macs == count_macs(model, (3, 224, 224))[0]
    assert table.total.params == count_params(model)


def test_first_are_of_all_families():
    families = {re.match("[a-z]+", name)[0]: name for name in reversed(torchvision.models.list_models(torchvision.models))}
    assert sorted(families.values()) == sorted(FIRST)


@pytest.mark.slow
def test_all_of_torchvisions_totals_equal_pytorchs_counter(name):
    test_torchvision_totals_equal_pytorchs_counter(name)


TIMM = """
    resnet18 resnet50d resnet26t resnetv2_50 seresnet50 ecaresnet50t gernet_s resnext50_32x4d densenet121 dpn68 dla34
    vgg11_bn inception_v4 xception nasnetalarge mobilenetv2_100 mobilenetv3_small_100 mobilenetv4_conv_small
    efficientnet_b0
    tf_efficientnet_b0 tinynet_a mnasnet_100 fbnetc_100 ghostnet_100 lcnet_050 hardcorenas_a mixnet_s spnasnet_100
    rexnet_100
    regnetx_002 regnety_002 regnetz_b16 nf_regnet_b0 dm_nfnet_f0 nf_resnet50 convnext_atto convnextv2_atto
    convmixer_768_32
    repvgg_a0 mobileone_s0 fastvit_t8 cspresnet50 cspdarknet53 darknet53 ese_vovnet19b_dw hrnet_w18_small
    res2net50_26w_4s
    selecsls42b skresnet18 resnest14d tresnet_m resnetrs50 edgenext_xx_small inception_next_atto hgnet_tiny hgnetv2_b0
    repghostnet_050 focalnet_tiny_srf poolformer_s12 levit_128s vit_tiny_patch16_224 mixer_s32_224 resmlp_12_224
    coatnet_0_rw_224
    mobilevit_xxs efficientformer_l1 efficientvit_b0 repvit_m0_9 swin_tiny_patch4_window7_224 pvt_v2_b0 botnet26t_256
""".split()


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if i % 10 == 0 else [pytest.mark.slow]) for i, name in enumerate(TIMM)])
def test_timm_totals_equal_pytorchs_counter(name):
    timm = timm_or_skip()
    try:
        with torch.device("meta"):
            model = timm.create_model(name).eval()
    except (NotImplementedError, RuntimeError):  # it computes with tensors; timm 1.0.3 in more networks than later ones
        model = timm.create_model(name).eval().to("meta")
    size = model.default_cfg["input_size"]
    table = assert_paths_agree(model, size)
    assert table.total.macs == count_macs(model, size)[0]
    assert table.total.params == count_params(model)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_equal_pytorchs_counter(seed):
    torch.manual_seed(seed)
    model = random_network(seed, blocks=4)
    size = (4, 48, 37)
    for mode in (model.eval(), model.train()):
        table = assert_paths_agree(mode, size, batch_size=2)
        assert table.total.macs == counted_macs(mode, torch.rand(2, *size))
        assert table.total.params == count_params(model)


# Tables derived by hand


def test_alexnet_by_hand():
    table = cost_table(torchvision.models.alexnet(), (3, 224, 224))
    rows = {row.name: row for row in table}
    by_hand = {  # output, parameters, multiply-adds
        "features.0": ((64, 55, 55), (3 * 11 * 11 + 1) * 64, 55 * 55 * 64 * 3 * 11 * 11),
        "features.2": ((64, 27, 27), 0, 0),
        "features.3": ((192, 27, 27), (64 * 5 * 5 + 1) * 192, 27 * 27 * 192 * 64 * 5 * 5),
        "features.6": ((384, 13, 13), (192 * 3 * 3 + 1) * 384, 13 * 13 * 384 * 192 * 3 * 3),
        "features.8": ((256, 13, 13), (384 * 3 * 3 + 1) * 256, 13 * 13 * 256 * 384 * 3 * 3),
        "features.10": ((256, 13, 13), (256 * 3 * 3 + 1) * 256, 13 * 13 * 256 * 256 * 3 * 3),
        "classifier.1": ((4096,), (256 * 6 * 6 + 1) * 4096, 256 * 6 * 6 * 4096),
        "classifier.4": ((4096,), (4096 + 1) * 4096, 4096 * 4096),
        "classifier.6": ((1000,), (4096 + 1) * 1000, 4096 * 1000),
    }
    assert {name: (rows[name].output_shape, rows[name].params, rows[name].macs) for name in by_hand} == by_hand
    assert table.total.params == 61_100_840 and table.total.macs == 714_188_480
    assert rows["features.0"].activations == 193_600 and rows["features.1"].activations == 0  # ReLU in place
    assert rows["features.2"].other == 27 * 27 * 64 * 9 and rows["features.1"].other == 193_600
    assert [stage.stage for stage in table.stages()] == ["features", "avgpool", "classifier"]
    assert sum(stage.macs for stage in table.stages()) == table.total.macs


def test_vgg16_by_hand():
    widths = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]
    side, channels, params, macs, stored = 224, 3, 0, 0, 0
    for width in widths:
        if width == "M":
            side //= 2
        else:
            params += (channels * 9 + 1) * width
            macs += side * side * width * channels * 9
            channels = width
        stored += side * side * channels
    sizes = [512 * 7 * 7, 4096, 4096, 1000]
    for before, after in zip(sizes, sizes[1:]):
        params, macs, stored = params + (before + 1) * after, macs + before * after, stored + after
    with torch.device("meta"):
        table = cost_table(torchvision.models.vgg16().eval(), (3, 224, 224))
    assert (table.total.params, table.total.macs) == (params, macs) == (138_357_544, 15_470_264_320)
    assert sum(row.activations for row in table if row.kind != "AdaptiveAvgPool2d") == stored


def test_first_inception_module_by_hand():
    class Inception(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(192, 64, 1)
            self.b = nn.Sequential(nn.Conv2d(192, 96, 1), nn.Conv2d(96, 128, 3, padding=1))
            self.c = nn.Sequential(nn.Conv2d(192, 16, 1), nn.Conv2d(16, 32, 5, padding=2))
            self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(192, 32, 1))

        def forward(self, x):
            return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)

    table = cost_table(Inception(), (192, 28, 28))
    terms = 192 * 64, 192 * 96, 96 * 128 * 9, 192 * 16, 16 * 32 * 25, 192 * 32
    assert [row.macs for row in table if row.macs] == [28 * 28 * term for term in terms]
    assert table.total.macs == 28 * 28 * sum(terms)
    assert table.total.params == sum(terms) + 64 + 96 + 128 + 16 + 32 + 32
    assert table[-1].kind == "cat" and table[-1].output_shape == (256, 28, 28) and table[-1].macs == 0


# Awkward networks, each against an independent count


class Function(nn.Module):
    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self, *inputs):
        return self.function(*inputs, *self.weights)


@pytest.mark.parametrize("model, size, macs", [
    (Function(lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=1), (8, 3, 3, 3)), (3, 10, 9), 5 * 9 * 8 * 27),
    (Function(lambda x, w: x.flatten(1) @ w, (12, 5)), (3, 4), 60),
    (Function(lambda x: torch.einsum("nchw,ndhw->ncd", x, x)), (6, 4, 5), 6 * 6 * 20),
    (Function(lambda x: F.scaled_dot_product_attention(x, x, x)), (2, 7, 4), 2 * 2 * 7 * 7 * 4),
    (Function(lambda x, w: torch.matmul(x, w), (4, 4)), (3, 4, 4), 3 * 4 * 4 * 4),
    (nn.Conv1d(3, 6, 5, 2), (3, 21), 9 * 6 * 15),
    (nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1)), (2, 3, 5, 7), 3 * 5 * 7 * 4 * 18),
    (nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=4), (8, 9, 11), 9 * 11 * 8 * 2 * 9),
    (nn.Conv2d(3, 4, 3, padding="same"), (3, 6, 6), 36 * 4 * 27),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), (4, 5, 7), 35 * 4 * 3 * 9),
    (nn.Bilinear(3, 4, 5), [(3,), (4,)], None),
    (nn.Identity(), (3, 4, 4), 0),
    (Function(lambda x: x + 1), (3, 4, 4), 0),
])
def test_awkward_operations(model, size, macs):
    table = assert_paths_agree(model, size)
    sizes = [size] if isinstance(size[0], int) else size
    counted = counted_macs(model, *(torch.rand(1, *one) for one in sizes))
    assert table.total.macs == counted and (macs is None or counted == macs)
    assert table.total.params == count_params(model)


def test_attention_module():
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    for mode in (model.eval(), model.train()):
        table = assert_paths_agree(mode, (10, 16))
        assert table.total.macs == 4 * 10 * 16 * 16 + 2 * 10 * 10 * 16 + 2 * 10 * 16 * 32
        assert table.total.params == count_params(model)


def test_a_module_used_twice_and_tied_weights_count_their_parameters_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.down, self.up = nn.Linear(8, 4, bias=False), nn.Linear(4, 8, bias=False)
            self.other = nn.Linear(8, 4, bias=False)
            self.other.weight = self.down.weight

        def forward(self, x):
            return self.other(self.up(self.down(self.conv(self.conv(x)))))

    table = cost_table(Twice(), (3, 8, 8))
    assert [row.params for row in table] == [84, 0, 32, 32, 0]
    assert [row.macs for row in table] == [64 * 81, 64 * 81, 24 * 32, 24 * 32, 24 * 32]


def test_several_inputs_nested_outputs_early_return_and_unused_modules():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.unused = nn.Conv2d(3, 4, 1), nn.Linear(5, 4), nn.Linear(2, 3)

        def forward(self, image, vector):
            features = {"map": self.left(image), "vectors": [self.right(vector)]}
            if features["map"].shape[2] > 4:
                return features
            return self.unused(vector)

    table = cost_table(Odd(), [(3, 6, 6), (5,)], batch_size=3)
    assert table.total.macs == 3 * (36 * 12 + 20)
    unused = table[-1]
    assert (unused.name, unused.called, unused.params, unused.macs) == ("unused", False, 9, 0)
    table = cost_table(Odd(), [torch.rand(2, 3, 6, 6), torch.rand(2, 5)])
    assert table.batch_size == 2 and table.total.macs == 2 * (36 * 12 + 20)


def test_trainable_parameters_and_dtype():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1))
    model[0].requires_grad_(False)
    table = cost_table(model, (3, 8, 8))
    half = cost_table(model, (3, 8, 8), dtype=torch.float16)
    assert table.total.params == 112 + 25 and table.total.trainable == 25
    assert half.total.activation_bytes * 2 == table.total.activation_bytes
    assert half.total.bytes_moved * 2 == table.total.bytes_moved
    assert half.total.macs == table.total.macs and model[0].weight.dtype is torch.float32


def test_bytes_intensity_and_roofline_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
    table = cost_table(model, (3, 8, 8), batch_size=2)
    conv, relu = table
    assert conv.bytes_moved == 4 * (2 * 64 * 3 + 12 + 2 * 64 * 4) and relu.bytes_moved == 4 * 2 * (2 * 64 * 4)
    assert conv.flops == 2 * conv.macs == 2 * 2 * 64 * 12
    assert conv.intensity == conv.flops / conv.bytes_moved
    slow_memory, slow_arithmetic = Device("a", 1e12, 1.0), Device("b", 1.0, 1e12)
    assert conv.seconds(slow_memory) == conv.bytes_moved and conv.seconds(slow_arithmetic) == conv.flops
    assert table.seconds(slow_memory) == table.total.bytes_moved
    with pytest.raises(ValueError, match="positive"):
        Device("broken", 0, 1)


def test_peak_of_live_tensors_by_hand():
    one = 4 * 8 * 8 * 4  # bytes of one map
    chain = nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(5)])
    assert cost_table(chain, (4, 8, 8)).peak_bytes == 3 * one  # the caller's image, one input, one output

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = chain

        def forward(self, x):
            return x + self.body(x)

    assert cost_table(nn.Sequential(nn.Conv2d(4, 4, 1), Residual()), (4, 8, 8)).peak_bytes == 4 * one


# Nothing is computed, nothing is changed


def test_the_model_is_left_as_it_was():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.register_buffer("seen", torch.zeros(()))
            self.cache = {}
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            self.cache["last"] = x
            self.seen += 1
            self.seen = self.seen + 1
            return F.dropout(self.norm(x), 0.5, self.training)

    model = Caching().train()
    buffer = model.seen
    state = torch.get_rng_state()
    cost_table(model, (3, 8, 8), batch_size=2)
    assert model.calls == 0 and model.cache == {} and model.seen is buffer and buffer == 0
    assert model.norm.num_batches_tracked == 0 and model.norm.running_mean.abs().sum() == 0
    assert torch.equal(state, torch.get_rng_state())


def test_nothing_stays_patched_after_a_failure():
    class Broken(nn.Module):
        def forward(self, x):
            raise KeyError("no such thing")

    hooks = nn.modules.module
    before = nn.Module.__call__, dict(hooks._global_forward_hooks), dict(hooks._global_forward_pre_hooks)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Broken())
    with pytest.raises(AnalysisError, match=r"module '1' \(Broken\).*KeyError"):
        cost_table(model, (3, 8, 8))
    assert before == (nn.Module.__call__, dict(hooks._global_forward_hooks), dict(hooks._global_forward_pre_hooks))
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.relu(torch.tensor(-1.0)) == 0 and torch.is_grad_enabled()
    assert model[0](torch.rand(1, 3, 8, 8)).shape == (1, 4, 6, 6)
    assert cost_table(model[0], (3, 8, 8)).total.macs == 36 * 108


def test_hooks_and_replaced_forwards_of_the_model_are_respected():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output[:, :, ::2])
    double = model[1].forward = lambda x: torch.cat([x, x], 1)
    table = assert_paths_agree(model, (3, 8, 8))
    assert table[-1].output_shape == (8, 3, 6) and model[1].__dict__["forward"] is double
    normed = nn.utils.spectral_norm(nn.Conv2d(3, 4, 3))
    assert cost_table(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), (3, 8, 8)).total.macs == 36 * 108
    assert cost_table(normed.eval(), (3, 8, 8)).total.params == 112


def test_a_trace_leaves_no_cycles_behind():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten())
    cost_table(model, (3, 8, 8))
    gc.collect()
    gc.disable()
    try:
        cost_table(model, (3, 8, 8))
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_meta_and_real_models_give_the_same_table():
    with torch.device("meta"):
        meta = torchvision.models.resnet18()
    assert cost_table(meta, (3, 64, 64)).rows == cost_table(torchvision.models.resnet18(), (3, 64, 64)).rows


# Bad input


@pytest.mark.parametrize("size, message", [
    ((4, 32, 32), r"module '0' \(Conv2d\).*\(1, 4, 32, 32\), \(4, 3, 3, 3\)"),
    ((3, 2, 2), "Kernel size can't be greater"), ((3, 0, 32), r"\(3, 0, 32\)"), ((3, -1, 8), "-1"),
    ((3, 8.5, 8), "8.5"), ((), r"\(\)"), (None, "None"), ("abc", "abc")])
def test_bad_sizes(size, message):
    with pytest.raises(ValueError, match=message):
        cost_table(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), size)


def test_other_bad_arguments():
    with pytest.raises(TypeError, match="nn.Module, got str"):
        cost_table("resnet50", (3, 224, 224))
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        cost_table(nn.ReLU(), (3,), batch_size=0)
    with pytest.raises(ValueError, match="floating-point"):
        cost_table(nn.ReLU(), (3,), dtype=torch.int64)


# Frames for people


def test_frames():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    table = cost_table(model, (3, 8, 8))
    frame = table.to_frame()
    assert list(frame["macs"]) == [36 * 108, 0, 0, 1440] and list(frame["flops"]) == [2 * 36 * 108, 0, 0, 2880]
    assert list(frame["output_shape"])[0] == (4, 6, 6)
    assert table.to_csv().splitlines()[1].startswith("0,Conv2d,3x8x8,4x6x6,108,108,3888,")
    text = str(table)
    assert "FLOPs = 2 x multiply-adds" in text and "batch 1, float32" in text and "3,888" in text
    assert table._repr_markdown_().startswith("| layer | kind | output | params |")
    assert "<td" in table._repr_html_() and "3,888" in table._repr_html_()
    assert len(repr(cost_table(nn.Sequential(*[nn.ReLU() for _ in range(200)]), (1, 4, 4))).splitlines()) < 70


def test_importing_the_analysis_loads_no_pandas():
    code = "import sys, cnnlib.analysis; print(any(m in sys.modules for m in ('pandas', 'matplotlib', 'torchvision')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_sum_of_rows_takes_any_iterable():
    table = cost_table(cnnlib.create_model("lenet5"), (1, 32, 32))
    once = Row.of(row for row in table)
    assert (once.params, once.macs, once.activations) == (table.total.params, table.total.macs, table.total.activations)
