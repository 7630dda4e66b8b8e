"""What one training step keeps in memory: weights, gradients, optimizer state, and what autograd saves for backward.

    memory = training_memory(model, (3, 224, 224), batch_size=128, optimizer="momentum")
    memory.total_bytes, memory.saved, memory.peak      # bytes
    print(memory)                                      # what each module's operations save

The step is really taken, forward and backward, on fake tensors: they have a shape, a dtype and a device but no
memory, and PyTorch's autograd works on them as on real ones. So what is saved is what autograd really saves.
"""

import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cnnlib import tables

from .cost import Row
from .inputs import InputSize, batch_hint, check_dtype, meta_inputs, own_dtype
from .trace import lock, modules_of
from .watch import AnalysisError, LiveBytes, eager, failure, mapped, tensors_in, unchanged

OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}  # values kept for each parameter
COUNT_STEPS = {"rmsprop", "adam", "adamw"}  # these keep a float32 step count for each parameter tensor


@dataclass
class Saved:
    """What the operations directly inside one module save: bytes in so many storages, each where it is first saved."""

    name: str
    kind: str
    saved: int = 0
    tensors: int = 0

    stage = Row.stage


class TrainingMemory(tables.Rows):
    """Bytes of one training step; the rows say which modules save how much, in forward order.

    Attributes:
        weights, buffers: the model's parameters and its other state, each storage once.
        gradients: one value for each trainable parameter, in the parameter's dtype.
        optimizer_state: what the optimizer keeps for each trainable parameter: `OPTIMIZER_STATES` values, and for those in
            `COUNT_STEPS` a 4-byte count for each tensor.
        saved: what autograd keeps from forward to backward, each storage once, in full where only a view is saved; the input
            counts if it is saved, weights and buffers do not, but copies of them in another dtype (autocast) do.
        total_bytes: the sum of these five: what is in memory at the end of a forward pass with gradients allocated.
        peak: the largest sum of live storages at any moment of forward and backward, the five included as far as
            they are alive then. Workspaces that kernels free again and the allocator's rounding are not counted.
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
        super().__init__(rows, Saved("", "", self.saved, sum(row.tensors for row in rows)), note)

    @property
    def total_bytes(self) -> int:
        """Weights, buffers, gradients, optimizer state and saved tensors."""
        return self.weights + self.buffers + self.gradients + self.optimizer_state + self.saved

    def stages(self) -> dict[str, int]:
        """Saved bytes by stage, as in `CostTable.stages`."""
        sums = Counter()
        for row in self.rows:
            sums[row.stage or "(model)"] += row.saved
        return dict(sums)


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

    `input_size` is as in `cost_table`.

    Raises `ValueError` for an unknown optimizer and for a device that is not there, and `AnalysisError` for networks that need
    values, not shapes.
    """
    modules = modules_of(model)
    model = modules[0][1]
    if optimizer not in OPTIMIZER_STATES:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZER_STATES)}; got {optimizer!r}")
    check_dtype(autocast, "autocast")
    there = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    if not re.fullmatch(rf"({'|'.join(there)})(:\d+)?", str(device)):  # the device's kernels decide what is kept
        raise ValueError(f"device must be {' or '.join(map(repr, there))}, whose kernels are here; got {device!r}")
    dtype = own_dtype(model)
    *given, batch = meta_inputs(input_size, batch_size, dtype)
    rows = {}  # of the modules that save something, in order
    stack = []  # names and kinds of the modules that are running

    with lock, eager(), unchanged(modules, values=True), FakeTensorMode(allow_non_fake_inputs=True):
        @cache
        def stand_in(tensor):
            if tensor.layout is not torch.strided:
                raise AnalysisError(f"tensors with layout {tensor.layout} cannot be followed; use a strided (dense) tensor")
            fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake

        for name, module in modules:  # as `unchanged` finds them, they are put back
            here = name, type(module).__name__
            module.register_forward_pre_hook(lambda *_, here=here: stack.append(here))
            module.register_forward_hook(lambda *_: stack.__delitem__(-1))  # None: the output stays
            for held in (module._parameters, module._buffers):
                held.update(mapped(stand_in, dict(held)))
        args, kwargs = mapped(stand_in, given)
        live = LiveBytes(tensors_in((args, kwargs)))
        state = {*model.parameters(), *model.buffers()}
        own = {tensor.untyped_storage()._cdata for tensor in state}
        live.seen.update(dict.fromkeys(own))  # autograd detaches what it keeps: weights are not made anew
        kept = {}  # storage -> a tensor that keeps it alive while counting

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage._cdata not in own and storage._cdata not in kept:
                kept[storage._cdata] = storage
                here = stack[-1] if stack else ("", type(model).__name__)
                row = rows.setdefault(here, Saved(*here))
                row.saved += storage.nbytes()
                row.tensors += 1
            return tensor

        mixed = nullcontext() if autocast is None else torch.autocast(torch.device(device).type, autocast)
        try:
            with torch.enable_grad(), live:
                with mixed, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                    result = model(*args, **kwargs)
                outputs = [t for t in tensors_in(result) if t.requires_grad]
                kept.clear()
                del result
                if outputs:
                    loss = sum(t.sum() for t in outputs)
                    del outputs
                    loss.backward()
                if any(parameter.grad is not None and parameter not in state for parameter in model.parameters()):
                    raise AnalysisError("the forward pass makes parameters and uses them; make them in the "
                                        "constructor, or run the network once before")
        except Exception as error:
            told = failure(stack[-1] if stack else None, error, "the step", f" raised {type(error).__name__}: ")
            raise AnalysisError(f"{told}{batch_hint(list(tensors_in(given)))}") from error

    trainable = [p for p in model.parameters() if p.requires_grad]
    counted = (model.parameters(), model.buffers(), trainable)
    weights, buffers, gradients = (sum(t.numel() * t.element_size() for t in tensors) for tensors in counted)
    optimizer_state = OPTIMIZER_STATES[optimizer] * gradients + 4 * len(trainable) * (optimizer in COUNT_STEPS)
    precision = str(dtype).removeprefix("torch.")
    if autocast is not None:
        precision += f" with autocast to {str(autocast).removeprefix('torch.')}"
    return TrainingMemory(
        rows.values(), weights, buffers, gradients, optimizer_state,
        weights + buffers + optimizer_state + live.peak,
        f"{'no batch' if batch is None else f'batch {batch}'}, {precision}, {optimizer}; bytes that autograd saves "
        "for backward, each storage once, weights not counted again")
