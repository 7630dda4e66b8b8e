"""Training memory: to the byte what autograd keeps on real tensors."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from cnnlib import create_model
from cnnlib.analysis import AnalysisError, training_memory
from cnnlib.analysis.watch import LiveBytes
from libraries import torchvision


def really_saved(model, images, autocast=None):
    """Bytes of the storages that saved-tensor hooks see, weights and buffers left out."""
    own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    context = torch.autocast("cpu", autocast) if autocast else nullcontext()
    with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    return sum(storage.nbytes() for storage in kept.values())


NAMES = ["resnet18", "squeezenet1_1", "alexnet", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5",
         "mnasnet0_5", "regnet_x_400mf", "densenet121", "efficientnet_b0", "convnext_tiny", "swin_t"]


@pytest.mark.parametrize("name, size", [("resnet20", (3, 32, 32)), ("squeezenet1_1", (3, 64, 64))])
def test_peak_is_that_of_a_real_step(name, size):
    model = create_model(name).train()
    images = torch.rand(4, *size)
    live = LiveBytes([images])
    live.seen |= {tensor.untyped_storage()._cdata: None for tensor in (*model.parameters(), *model.buffers())}
    with live:
        model(images).sum().backward()
    memory = training_memory(model, size, batch_size=4, optimizer="sgd")
    assert memory.peak == live.peak + memory.weights + memory.buffers
    assert memory.peak > memory.total_bytes - memory.gradients


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in NAMES[:4] else [pytest.mark.slow]) for name in NAMES])
def test_saved_bytes_are_those_that_autograd_keeps(name, autocast):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=10).train()
    images = torch.rand(2, 3, 64, 64)
    memory = training_memory(model, (3, 64, 64), batch_size=2, autocast=autocast)
    assert memory.saved == really_saved(model, images, autocast)
    assert memory.saved == sum(memory.stages().values()) == memory.total.saved


def test_parts_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    memory = training_memory(model, (3, 8, 8), batch_size=2, optimizer="adam")
    image, out = 4 * 2 * 3 * 64, 4 * 2 * 4 * 36
    weights = 4 * (108 + 8)
    assert {row.name: row.saved for row in memory} == {"0": image, "1": out + 2 * 4 * 4, "2": out}
    assert (memory.weights, memory.gradients, memory.optimizer_state) == (weights, weights, 2 * weights + 3 * 4)
    assert memory.buffers == 4 * 8 + 8
    assert memory.total_bytes == weights * 4 + 12 + 40 + image + 2 * out + 32
    assert "bytes that autograd saves" in str(memory)


def test_optimizer_state_is_what_optimizers_keep():
    kinds = {"sgd": lambda p: torch.optim.SGD(p, 0.1), "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
             "rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    for name, make in kinds.items():
        optimizer = make(model.parameters())
        model(torch.rand(3, 6)).sum().backward()
        optimizer.step()
        kept = sum(t.numel() * t.element_size() for state in optimizer.state.values() for t in state.values()
                   if isinstance(t, torch.Tensor))
        computed = training_memory(model, (6,), optimizer=name).optimizer_state
        assert computed == kept, name


def test_model_is_left_alone_and_bad_input_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training_memory(model, (3, 8, 8), batch_size=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ValueError, match="sgd, momentum, rmsprop, adam, adamw; got 'lion'"):
        training_memory(model, (3, 8, 8), optimizer="lion")
    with pytest.raises(AnalysisError, match="module '0'"):
        training_memory(model, (4, 8, 8))
    assert not model[0]._forward_hooks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "vgg16"])
def test_peak_is_near_that_of_cuda(name):
    torch.backends.cudnn.benchmark = False
    model = torchvision.models.get_model(name).train().cuda()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        images = torch.rand(32, 3, 224, 224, device="cuda")
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        model(images).sum().backward()
        peak = torch.cuda.max_memory_allocated()
        optimizer.step()
    computed = training_memory(model, (3, 224, 224), batch_size=32, device="cuda").peak
    assert computed == pytest.approx(peak, rel=0.05)


def test_a_block_that_is_computed_again_keeps_less():
    """The backward pass runs parts of the network once more, with the state that stands in for its own."""
    whole, again = (training_memory(create_model("densenet_cifar", memory_efficient=efficient).train(), (3, 32, 32), batch_size=8)
                    for efficient in (False, True))
    assert again.saved < whole.saved / 2 and again.peak < whole.peak
    assert (again.weights, again.gradients) == (whole.weights, whole.gradients)
