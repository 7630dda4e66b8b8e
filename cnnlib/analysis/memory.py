"""What one training step keeps in memory: weights, gradients, optimizer state, and what autograd saves for backward.

    memory = training_memory(model, (3, 224, 224), batch_size=128, optimizer="momentum")
    memory.total_bytes, memory.saved, memory.peak      # bytes
    print(memory)                                      # what each module's operations save

The step is really taken, forward and backward, on fake tensors: they have a shape, a dtype and a device but no
memory, and PyTorch's autograd works on them as on real ones. So what is saved is what autograd really saves.
"""

import weakref
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from .cost import Row, Rows
from .trace import AnalysisError, InputSize, _lock, _meta_inputs, named_modules, tensors_in, unchanged

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}  # values kept for each parameter
COUNT_STEPS = {"rmsprop", "adam", "adamw"}  # these keep a float32 step count for each parameter tensor


@dataclass
class Saved:
    """What the operations directly inside one module save: each storage counts where it is saved first.

    `saved` is in bytes; `tensors` is the number of storages."""

    name: str
    kind: str
    saved: int = 0
    tensors: int = 0

    stage = Row.stage


@dataclass
class SavedTotal:
    saved: int
    tensors: int


class TrainingMemory(Rows):
    """Bytes of one training step; the rows say which modules save how much, in forward order.

    Attributes:
        weights, buffers: the model's parameters and its other state, each storage once.
        gradients: one value for each trainable parameter, in the parameter's dtype.
        optimizer_state: what the optimizer keeps for each trainable parameter: nothing for "sgd", one value for
            "momentum" and "rmsprop", two for "adam" and "adamw"; the last three also a 4-byte step count for each
            tensor.
        saved: what autograd keeps from forward to backward, each storage once, in full where only a view is saved;
            weights and buffers are not counted again, copies of them in another dtype (autocast) are. The input
            counts if it is saved.
        total_bytes: the sum of these five: what is in memory at the end of a forward pass with gradients allocated.
        peak: the largest sum of live storages at any moment of forward and backward, the five included as far as
            they are alive then: saved tensors are freed while gradients appear. Workspaces of kernels and the
            allocator's rounding are not counted.
    """

    columns = ("name", "kind", "saved", "tensors")
    title_of = {"name": "layer", "saved": "saved bytes", "tensors": "storages"}

    def __init__(self, rows, weights, buffers, gradients, optimizer_state, peak, note):
        rows = list(rows)
        self.weights = weights
        self.buffers = buffers
        self.gradients = gradients
        self.optimizer_state = optimizer_state
        self.saved = sum(row.saved for row in rows)
        self.peak = peak
        super().__init__(rows, SavedTotal(self.saved, sum(row.tensors for row in rows)), note)

    @property
    def total_bytes(self) -> int:
        """Weights, buffers, gradients, optimizer state and saved tensors."""
        return self.weights + self.buffers + self.gradients + self.optimizer_state + self.saved

    def stages(self) -> dict[str, int]:
        """Saved bytes by stage, as in `CostTable.stages`."""
        sums = {}
        for row in self.rows:
            sums[row.stage or "(model)"] = sums.get(row.stage or "(model)", 0) + row.saved
        return sums


def training_memory(
    model: nn.Module,
    input_size: InputSize,
    *,
    batch_size: int = 1,
    optimizer: str = "momentum",
    autocast: torch.dtype | None = None,
    device: str = "cpu",
) -> TrainingMemory:
    """What one training step of `model` keeps in memory; nothing is computed and no memory is taken.

    The model is taken in its present mode; call `model.train()` first to count as in training. `optimizer` is one of
    "sgd", "momentum", "rmsprop", "adam", "adamw"; `autocast` is the dtype of mixed precision (torch.bfloat16).
    `device` names whose kernels decide what is saved ("cpu", "cuda"); the loss is the sum of the outputs.

    Raises `ValueError` for an unknown optimizer and `AnalysisError` for networks that need values, not shapes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if optimizer not in OPTIMIZER_STATES:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZER_STATES)}; got {optimizer!r}")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())
    inputs = _meta_inputs(input_size, batch_size, dtype)
    names = {id(module): name for name, module in model.named_modules()}
    rows = {name: Saved(name, type(module).__name__) for name, module in model.named_modules()}
    order = {}
    stack = []

    with (_lock, unchanged(named_modules(model)), ExitStack() as hooks,
          FakeTensorMode(allow_non_fake_inputs=True)):
        def stand_in(tensor):
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)

        state = {}
        twins = {}
        for name, tensor in chain(model.named_parameters(remove_duplicate=False),
                                  model.named_buffers(remove_duplicate=False)):
            if id(tensor) not in twins:
                twin = stand_in(tensor)
                is_parameter = isinstance(tensor, nn.Parameter)
                twins[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
            state[name] = twins[id(tensor)]
        own = {tensor.untyped_storage()._cdata for tensor in twins.values()}
        for name, module in model.named_modules():
            enter = module.register_forward_pre_hook(lambda module, _: stack.append(names[id(module)]))
            leave = module.register_forward_hook(lambda *_: stack.pop() and None)
            hooks.callback(enter.remove)
            hooks.callback(leave.remove)

        kept = {}  # storage -> a tensor that keeps it alive while counting

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage._cdata not in own and storage._cdata not in kept:
                kept[storage._cdata] = storage
                row = rows[stack[-1] if stack else ""]
                order[row.name] = row
                row.saved += storage.nbytes()
                row.tensors += 1
            return tensor

        images = [stand_in(tensor) for tensor in inputs]
        live = _LiveBytes(images)
        context = torch.autocast(device, autocast) if autocast is not None else nullcontext()
        try:
            with torch.enable_grad(), live:
                with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                    result = torch.func.functional_call(model, state, tuple(images))
                outputs = [t for t in tensors_in(result) if t.requires_grad]
                kept.clear()
                if outputs:
                    del result
                    loss = sum(t.sum() for t in outputs)
                    del outputs
                    loss.backward()
        except Exception as error:
            where = f"in module {stack[-1]!r}: " if stack else ""
            raise AnalysisError(f"{where}{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error

    parameters = list(model.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    weights = _distinct_bytes(parameters)
    buffers = _distinct_bytes(model.buffers())
    gradients = sum(p.numel() * p.element_size() for p in trainable)
    optimizer_state = OPTIMIZER_STATES[optimizer] * gradients + 4 * len(trainable) * (optimizer in COUNT_STEPS)
    precision = str(dtype).removeprefix("torch.")
    if autocast is not None:
        precision += f" with autocast to {str(autocast).removeprefix('torch.')}"
    return TrainingMemory(
        order.values(), weights, buffers, gradients, optimizer_state,
        weights + buffers + optimizer_state + live.peak,
        f"batch {inputs[0].shape[0] if inputs else batch_size}, {precision}, {optimizer}; bytes that autograd saves "
        "for backward, each storage once, weights not counted again")


def _distinct_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())


_WEIGHT_OF_NORM = {"native_batch_norm": 1, "native_layer_norm": 2, "native_group_norm": 1}


class _LiveBytes(TorchDispatchMode):
    """The peak of the sizes of storages that operations make, while they live, and of the given tensors."""

    def __init__(self, given):
        super().__init__()
        self.now = self.peak = 0
        self.seen = {}
        for tensor in given:
            self.add(tensor)

    def add(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen:
            return
        size = storage.nbytes()

        def freed(_):
            del self.seen[key]
            self.now -= size

        self.seen[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        weight = _WEIGHT_OF_NORM.get(func.overloadpacket.__name__)
        if weight is not None and args[weight] is not None and args[weight].dtype != result[1].dtype:
            # Kernels keep the statistics in the weight's dtype; PyTorch's shape functions say the input's.
            result = (result[0], *(statistic.to(args[weight].dtype) for statistic in result[1:]))
        for tensor in tensors_in(result):
            self.add(tensor)
        return result
