"""Everything on the networks of torchvision and timm: counts, memory and fields against PyTorch itself; nothing is left changed."""

import copy

import pytest
import torch
from analysis_graphs import make_positive, real_extents
from torch.utils.flop_counter import FlopCounterMode

from cnnlib.analysis import AnalysisError, cost_table, receptive_field, training_memory
from libraries import timm_or_skip, torchvision
from zoo import count_params



def size_of_video(name):
    """(channels, frames, height, width) of a network for video of torchvision, else None."""
    models = torchvision.models
    if name in models.list_models(models.video):
        return (3, 16, 224, 224) if name.startswith(("mvit", "swin3d", "s3d")) else (3, 8, 112, 112)


def pytest_generate_tests(metafunc):  # names that take an import of torchvision, for slow tests alone
    if metafunc.function is test_all_of_torchvision:
        models = torchvision.models
        families = (models, models.segmentation, models.video)
        metafunc.parametrize("name", [f"torchvision:{name}" for family in families for name in models.list_models(family)])


def timm_names():
    """About 360 networks, spread over all families: of each the ones with the shortest names."""
    timm = timm_or_skip()
    by_family = {}
    for name in sorted(timm.list_models(), key=lambda name: (len(name), name)):
        by_family.setdefault(timm.models._registry._model_to_module[name], []).append(name)
    return [name for names in by_family.values() for name in names[:4]]


def built(name):
    """(network on the meta device or, where its constructor computes, on the CPU; input size)."""
    library, _, short = name.partition(":")
    models = torchvision.models
    make, size = models.get_model, size_of_video(short) or (3, 224, 224)
    if library == "timm":
        import timm

        make = timm.create_model
        size = timm.models.get_pretrained_cfg(short).input_size if timm.models.is_model_pretrained(short) else None
    arguments = {"weights": None, "weights_backbone": None} if short in models.list_models(models.segmentation) else {}
    try:
        with torch.device("meta"):
            model = make(short, **arguments)
    except (NotImplementedError, RuntimeError):
        model = make(short, **arguments)
    return model.eval(), size or getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))


def snapshot(model):
    """What a module must still be afterwards."""
    return [(name, type(module), module.training, sorted(vars(module)), [id(p) for p in module.parameters(recurse=False)],
             [(key, id(b), b._version) for key, b in module.named_buffers(recurse=False)], len(module._forward_hooks))
            for name, module in model.named_modules()]


def assert_counts_hold(name):
    """Costs equal to PyTorch's counter, nothing changed; returns whether the fields finished, where else an operation is refused by name."""
    model, size = built(name)
    before = snapshot(model)
    table = cost_table(model, size)
    counted = copy.deepcopy(model).to("meta").requires_grad_(False)  # the counter's hooks fail on class tokens that require a gradient
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(torch.empty(1, *size, device="meta"))
    assert table.total.macs == counter.get_total_flops() // 2 > 0
    assert table.total.params == count_params(model)
    assert sum(part.macs for part in table.tree(depth=1)[1:]) + sum(row.macs for row in table if not row.name) == table.total.macs
    try:
        fields = receptive_field(model, size)
        assert all(len(one.size) == len(size) - 1 for one in fields.values())
        assert fields and str(fields)
        finished = True
    except AnalysisError as error:
        finished = False
        assert "cannot follow the operation" in str(error)
        partial = receptive_field(model, size, strict=False)
        assert partial.missing and all(one.op and one.reason for one in partial.missing)
    assert snapshot(model) == before
    return finished


QUICK = ["torchvision:alexnet", "torchvision:mobilenet_v3_small", "torchvision:r3d_18", "torchvision:lraspp_mobilenet_v3_large"]


@pytest.mark.parametrize("name", QUICK)
def test_some_networks_count_as_pytorch_does(name):
    assert assert_counts_hold(name)


@pytest.mark.slow
def test_all_of_torchvision(name):
    assert assert_counts_hold(name)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_timm_across_families(part):
    names = timm_names()
    assert len(names) >= 200
    wrong, finished = {}, []
    for name in names[part::8]:
        try:
            finished.append(assert_counts_hold(f"timm:{name}"))
        except Exception as error:  # all of them are wanted at once
            wrong[name] = f"{type(error).__name__}: {error}"[:300]
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
    assert sum(finished) >= 0.9 * len(finished), f"fields of {sum(finished)} of {len(finished)} finished"


# Fields and memory, with numbers that are computed


CONVOLUTIONAL = """alexnet vgg11 vgg13_bn squeezenet1_0 squeezenet1_1 resnet18 resnet34 resnet50 resnext50_32x4d wide_resnet50_2 densenet121
    googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet1_0 shufflenet_v2_x0_5 shufflenet_v2_x1_0
    efficientnet_b0 efficientnet_b1 regnet_x_400mf regnet_y_400mf convnext_tiny""".split()
CONVOLUTIONAL_TIMM = """resnet26t resnet50d res2net50_26w_4s dla34 dpn68 hardcorenas_a ghostnet_100 lcnet_050 tinynet_a fbnetc_100 spnasnet_100
    mixnet_s rexnet_100 cspdarknet53 ese_vovnet19b_dw hrnet_w18_small selecsls42b repvgg_a0 xception41 gernet_s""".split()


def twin(name):
    if name in CONVOLUTIONAL:
        return torchvision.models.get_model(name, weights=None, **({"init_weights": False, "aux_logits": False} if "net_v3" in name and "inc" in name
                                                       or name in ("googlenet", "inception_v3") else {}))
    return timm_or_skip().create_model(name)


def assert_three_units_are_real(name, size=(3, 96, 96)):
    model = twin(name).eval()
    fields = receptive_field(model, size)
    maps = {row.name for row in cost_table(model, size) if len(row.output_shape) == 3 and row.kind not in ("ReLU", "Flatten")}
    layer = [layer for layer, one in fields.items() if layer in maps and min(one.units) > 2][-1]
    height, width = fields[layer].units
    units = [(0, 0), (height // 2, width // 2), (height - 1, width - 2)]
    for (_, unit), spans in real_extents(make_positive(model), size, {layer: units}).items():
        assert fields[layer].pixels(unit) == spans, (name, layer, unit)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "squeezenet1_1" else [pytest.mark.slow])
                                  for name in CONVOLUTIONAL + CONVOLUTIONAL_TIMM])
def test_three_units_see_what_their_gradients_say(name):
    assert_three_units_are_real(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL + CONVOLUTIONAL_TIMM)
def test_saved_bytes_are_those_of_autograd(name):
    from test_analysis_memory import really_saved

    model = twin(name).train()
    assert training_memory(model, (3, 96, 96), batch_size=2).saved == really_saved(model, torch.rand(2, 3, 96, 96))
