"""Whatever watches a network leaves it and the process as they were: after success, after an error, after an interrupt."""

import collections
import copy
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnlib.analysis import (AnalysisError, cost_table, deconvolve, grad_cam, gradient_footprint, occlusion_map, outputs_of, receptive_field, signals,
                             strongest_responses, training_memory)


class Settings:
    def __init__(self):
        self.log = []
        self.step = 0


class Restless(nn.Module):
    """Changes all that a forward pass can change, and then may raise."""

    def __init__(self, error=None):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.relu, self.head = nn.ReLU(), nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()))
        for module in (self, self.conv):  # forward adds another one to the first
            module.register_buffer("passing", torch.zeros(2), persistent=False)
        self.plain = torch.zeros(3)
        self.nested = {"lists": [[1], (2, [3])], "set": {1}, "queue": collections.deque([1])}
        self.settings = Settings()
        self.calls = 0
        self.error = error

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        self.plain += 1
        self.nested["lists"][0].append(x)
        self.nested["lists"][1][1].append(x)
        self.nested["set"].add(self.calls + 1)
        self.nested["queue"].append(x)
        self.nested["new"] = x
        self.settings.log.append(x)
        self.settings.step += 1
        self.cache = x
        random.random()
        np.random.rand()
        torch.rand(1)
        self.norm.train(not self.norm.training)
        self.conv.register_forward_hook(lambda *_: None)
        self.added = nn.Linear(1, 1)
        self.register_buffer("more", torch.zeros(1), persistent=False)
        x = self.drop(self.relu(self.norm(self.conv(x))))
        if self.error is not None:
            raise self.error
        return self.head(x.mean((2, 3)))


def snapshot(model):
    names = [name for name, _ in model.named_modules()]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return (names, copy.deepcopy(model.nested), vars(model.settings).copy() | {"log": list(model.settings.log)}, model.calls,
            hasattr(model, "cache"), [module.training for module in model.modules()], model.plain.clone(),
            [(list(m._forward_hooks), list(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()],
            [p.grad for p in model.parameters()], sorted(model._non_persistent_buffers_set)), tensors


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2], torch.get_rng_state().tolist()


WATCHERS = {
    "cost_table": lambda model: cost_table(model, (3, 8, 8)),
    "receptive_field": lambda model: receptive_field(model, (3, 8, 8)),
    "training_memory": lambda model: training_memory(model, (3, 8, 8), batch_size=2),
    "outputs_of": lambda model: outputs_of(model, ["norm", "conv"], torch.rand(2, 3, 8, 8)),
    "signals": lambda model: signals(model, torch.rand(2, 3, 8, 8), torch.tensor([0, 1])),
    "footprint": lambda model: gradient_footprint(model, torch.rand(2, 3, 8, 8), "norm", initializations=1),
    "strongest": lambda model: strongest_responses(model, "norm", torch.rand(2, 3, 8, 8)),
    "deconvolve": lambda model: deconvolve(model, "norm", torch.rand(2, 3, 8, 8), torch.zeros(2, 3, dtype=torch.int64)),
    "grad_cam": lambda model: grad_cam(model, torch.rand(2, 3, 8, 8), layer="norm"),
    "occlusion": lambda model: occlusion_map(model, torch.rand(3, 4, 4), size=3),
}


@pytest.mark.parametrize("error", [None, RuntimeError("no"), KeyboardInterrupt()], ids=["success", "error", "interrupt"])
@pytest.mark.parametrize("name", WATCHERS)
def test_model_and_process_are_left_as_they_were(name, error):
    model = Restless(error).train()
    images = torch.rand  # drawn inside the call: its own generator
    before, tensors = snapshot(model)
    torch.manual_seed(0)
    draw, torch.rand = torch.rand, lambda *shape: torch.zeros(shape) if len(shape) > 1 else images(*shape)
    try:
        start = states()
        if error is None:
            WATCHERS[name](model)
        else:
            with pytest.raises((type(error), AnalysisError)):
                WATCHERS[name](model)
        assert states() == start
    finally:
        torch.rand = draw
    after, now = snapshot(model)
    assert now.keys() == tensors.keys() and all(torch.equal(now[key], tensors[key]) for key in tensors)
    assert all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(before, after))
    assert torch.is_grad_enabled() and torch.relu(torch.tensor(-1.0)) == 0
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_outputs_are_what_the_module_gave_out():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Hardswish(inplace=True)).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        true = model[1](model[0](images))
        caught = outputs_of(model, ["1", "2"], images)
    assert true.min() < 0 and torch.equal(caught["1"], true) and torch.equal(caught["2"], true.relu())
    loud = outputs_of(model, ["1"], images.requires_grad_())["1"]
    assert torch.autograd.grad(loud.sum(), images)[0].abs().sum() > 0


def test_outputs_of_several_calls_and_tensors():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.LSTM(3, 2, batch_first=True)
            self.unused = nn.ReLU()

        def forward(self, x):
            return self.inner(self.inner(x)[0].repeat(1, 1, 2)[..., :3])

    model, x = Twice(), torch.rand(1, 4, 3)
    assert torch.equal(outputs_of(model, ["inner"], x)["inner"], model(x)[0])
    with pytest.raises(AnalysisError, match="'unused' is not called"):
        outputs_of(model, ["unused"], x)
    with pytest.raises(AttributeError):
        outputs_of(model, ["inner", "typo"], x)
    assert not model.inner._forward_hooks
    with pytest.raises(RuntimeError):
        outputs_of(model, ["inner"], torch.rand(1, 4, 7))
    assert not model.inner._forward_hooks


def test_a_replaced_forward_survives_a_deconvolution():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.ReLU())
    own = model[2].forward = lambda x: x * 2
    deconvolve(model, "1", torch.rand(1, 1, 4, 4), torch.zeros(1, 3, dtype=torch.int64))
    assert model[2].__dict__["forward"] is own and "forward" not in vars(model[1])


@pytest.mark.filterwarnings("ignore")
def test_compiled_modules_are_taken_as_they_were_written(capfd):
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    for model in (torch.compile(inner), nn.Sequential(torch.compile(inner))):
        assert cost_table(model, (3, 8, 8)).total.macs == 36 * 108
        assert training_memory(model, (3, 8, 8)).saved == 4 * (192 + 144)
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore")
def test_programs_are_refused_by_name():
    scripted = torch.jit.trace(nn.Linear(3, 3), torch.rand(1, 3))
    for watch in (cost_table, training_memory):
        with pytest.raises(AnalysisError, match="the model is a TorchScript program.*pass the nn.Module"):
            watch(scripted, (3,))
        with pytest.raises(AnalysisError, match="module '0' is a TorchScript program"):
            watch(nn.Sequential(scripted), (3,))
    with pytest.raises(TypeError, match="nn.Module, got function"):
        training_memory(F.relu, (3,))


@torch.jit.script
def squared(x: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x, x)


def in_a_thread(x):
    found = []
    thread = threading.Thread(target=lambda: found.append(x @ x))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("function, message", [
    (squared, "cannot be watched"), (in_a_thread, "another thread"),
    (lambda x: torch.eye(4).to_sparse() @ x[0, 0], "layout torch.sparse_coo"),
    (lambda x: x[0, 0] * torch.eye(4).to_sparse(), "layout torch.sparse_coo")])
def test_what_runs_out_of_sight_is_refused_by_name(function, message):
    class Hidden(nn.Module):
        def forward(self, x):
            return function(x) + 1

    for watch in (cost_table, receptive_field):
        with pytest.raises(AnalysisError, match=f"in module '0' .Hidden.: .*{message}"):
            watch(nn.Sequential(Hidden()), (2, 4, 4))


def test_what_the_model_makes_out_of_nothing_is_known():
    class Fresh(nn.Module):
        def forward(self, x):
            moved = torch.arange(4.0, device="cpu").to(x.device) + x.new_tensor([1.0, 2.0, 3.0, 4.0])
            return x + torch.ones(4, device=x.device) * torch.zeros((), device=x.device) + moved

    with torch.device("meta"):
        assert cost_table(Fresh(), (2, 4, 4)).total.other == 32 + 32 + 4 + 4


def test_parameters_without_a_shape_and_sparse_ones_are_refused_by_name():
    sparse = nn.Linear(4, 4)
    sparse.register_buffer("mask", torch.eye(4).to_sparse())
    sparse.forward = lambda x: torch.sparse.mm(sparse.mask, x)
    for watch in (cost_table, training_memory):
        with pytest.raises(AnalysisError, match="module '1' .LazyLinear. has parameters without a shape; run the network once"):
            watch(nn.Sequential(nn.ReLU(), nn.LazyLinear(3)), (4,))
        with pytest.raises(AnalysisError, match="layout torch.sparse_coo cannot be followed"):
            watch(sparse, (4,))


@pytest.mark.parametrize("is_kept", [False, True])
def test_parameters_made_in_the_forward_pass_are_refused_by_name(is_kept):
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = None

        def forward(self, x):
            head = nn.Linear(x.shape[-1], 5)
            if is_kept:
                self.head = head
            return head(x)

    model = nn.Sequential(Late())
    for watch in (cost_table, training_memory) if is_kept else (cost_table,):
        with pytest.raises(AnalysisError, match="parameter.* made? .*run the network once before|makes parameters.*run the network once before"):
            watch(model, (4,))
        assert model[0].head is None and "head" not in model[0]._modules


def test_outputs_in_containers_go_on_as_copies():
    class Pair(nn.Module):
        def forward(self, x):
            return {"maps": (x * 2, [x]), "none": None}

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            out = self.pair(x)
            return out["maps"][0].zero_() + out["maps"][1][0]

    x = torch.rand(2, 3)
    assert torch.equal(outputs_of(Whole(), ["pair"], x)["pair"], 2 * x) and torch.equal(outputs_of(Whole(), [""], x)[""], x)


def test_an_attribute_that_moved_to_another_name_moves_back():
    class Mover(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = [1]

        def forward(self, x):
            self.second = self.__dict__.pop("first")
            return x

    model = Mover()
    for watch in (lambda: cost_table(model, (2,)), lambda: outputs_of(model, [""], torch.rand(1, 2))):
        watch()
        assert model.first == [1] and not hasattr(model, "second")
