"""A second device that needs no hardware: tensors that are "there" are marked, and a mixture with others is refused.

    with OtherDevice() as other:
        model.to(other.device)
        logits = model(images.to(other.device))      # fine
        model(images)                                # MixedDevices: conv2d got (8, 3, 3, 3) on mps and (2, 3, 32, 32) on the CPU
    assert other.has(logits)

All tensors stay on the CPU in truth, so that every value is right; only `tensor.device` and what PyTorch would do with two
devices are played. As on a real GPU: a tensor of no axes may come from the CPU; indices on the CPU may choose from a tensor
there, but not the other way round; `copy_` and `to` cross over; NumPy reads the CPU alone.
What C++ does by itself (the backward pass, worker processes) is not watched; gradients are where their tensors are.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

CROSSING = {"to", "copy_", "cpu", "set_data", "load_state_dict", "_has_compatible_shallow_copy_type", "is_set_to", "type_as"}


class MixedDevices(RuntimeError):
    """An operation got tensors of two devices."""


def tensors_in(thing: object) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, (tuple, list)):
        for entry in thing:
            yield from tensors_in(entry)
    elif isinstance(thing, dict):
        yield from tensors_in(list(thing.values()))


class OtherDevice(TorchFunctionMode):
    """Within it `self.device` works like a GPU, and an operation on tensors of two devices raises `MixedDevices`."""

    def __init__(self, device: str = "mps"):
        super().__init__()
        self.device, self.there = torch.device(device), WeakIdKeyDictionary()

    def has(self, thing: object) -> bool:
        """Whether there are tensors in `thing`, and all of them are on the other device (for a module: its state)."""
        held = list(tensors_in(dict(thing.state_dict()) if isinstance(thing, nn.Module) else thing))
        return bool(held) and all(tensor in self.there for tensor in held)

    def __enter__(self) -> "OtherDevice":
        make = nn.Parameter.__new__

        def parameter(cls, data=None, requires_grad=True):
            return self.mark(make(cls, data, requires_grad), data is not None and data in self.there)

        self.patches = ExitStack()
        for place, name, played in ((nn.Parameter, "__new__", parameter),
                                    (torch.mps, "get_rng_state", lambda: torch.get_rng_state()),
                                    (torch.mps, "set_rng_state", lambda state: torch.set_rng_state(state)),
                                    (torch.accelerator, "synchronize", lambda device=None: None)):
            self.patches.enter_context(mock.patch.object(place, name, played))
        return super().__enter__()

    def __exit__(self, *error):
        self.patches.close()
        return super().__exit__(*error)

    def mark(self, tensor: Tensor, there: bool) -> Tensor:
        if there:
            self.there[tensor] = True
        else:
            self.there.pop(tensor, None)
        return tensor

    def is_ours(self, device: object) -> bool:
        return isinstance(device, (str, torch.device)) and torch.device(device).type == self.device.type

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, getter = dict(kwargs or {}), getattr(function, "__self__", None)
        name = getattr(getter, "__name__", "") if getattr(function, "__name__", "") == "__get__" else None
        if name is not None:  # a property such as tensor.device
            there = args[0] in self.there
            if name == "device":
                return self.device if there else function(*args, **kwargs)
            if name in ("is_cpu", "is_cuda", "is_mps", "is_xpu") and there:
                return name == f"is_{self.device.type}"
            value = function(*args, **kwargs)
            return self.mark(value, there) if isinstance(value, Tensor) and there else value
        name = getattr(function, "__name__", str(function))
        if name == "__set__":  # tensor.data = other: the tensor goes where the other is; a gradient stays with its tensor
            if isinstance(args[1], Tensor) and getattr(getter, "__name__", "") == "data":
                self.mark(args[0], args[1] in self.there)
            return function(*args, **kwargs)
        if name == "to":
            return self.to(function, *args, **kwargs)

        target, device = None, kwargs.get("device")
        if device is not None:
            target = self.is_ours(device)
            kwargs["device"] = "cpu" if target else device
        elif name == "cpu":
            target = False
        inputs = list(tensors_in([args[:1] if name == "__deepcopy__" else args, kwargs]))  # its memory holds all that was copied
        self.check(function, name, args, kwargs, inputs)
        there = target if target is not None else (
            args[0] in self.there if name == "type_as" else any(tensor in self.there for tensor in inputs))
        outputs = function(*args, **kwargs)
        if name == "cpu" and outputs is args[0] and outputs in self.there:
            outputs = outputs.clone()
        given = {id(tensor) for tensor in inputs}
        for tensor in tensors_in(outputs):
            if id(tensor) not in given:
                self.mark(tensor, there)
        return outputs

    def to(self, function, tensor: Tensor, *args, **kwargs) -> Tensor:
        """`tensor.to(...)`: always a copy if the device changes."""
        before = there = tensor in self.there
        devices = [thing for thing in (*args, *kwargs.values()) if isinstance(thing, (str, torch.device, Tensor))]
        for thing in devices:
            there = thing in self.there if isinstance(thing, Tensor) else self.is_ours(thing)

        def here(thing):
            return torch.device("cpu") if isinstance(thing, (str, torch.device)) and self.is_ours(thing) else thing

        moved = function(tensor, *map(here, args), **{key: here(value) for key, value in kwargs.items()})
        if moved is tensor and before != there:
            moved = moved.clone(memory_format=torch.preserve_format)
        return moved if moved is tensor else self.mark(moved, there)

    def check(self, function, name: str, args: tuple, kwargs: dict, inputs: list[Tensor]) -> None:
        there = [tensor for tensor in inputs if tensor in self.there]
        if not there:
            return
        if name in ("numpy", "__array__"):
            raise MixedDevices(f"NumPy cannot read a tensor {tuple(there[0].shape)} on {self.device}; call .cpu() first")
        here = [tensor for tensor in inputs if tensor not in self.there]
        if not here or name in CROSSING:
            return
        owner = args[0] if args and isinstance(args[0], Tensor) else None
        if owner is not None and owner in self.there and name in ("__getitem__", "__setitem__"):
            value = args[2] if name == "__setitem__" else None
            by_tensor = any(True for _ in tensors_in(args[1]))
            if not (isinstance(value, Tensor) and value not in self.there and value.dim() and by_tensor):
                return
        changes_owner = name.endswith("_") and not name.endswith("__") and owner is not None and owner not in self.there
        if all(tensor.dim() == 0 for tensor in here) and not changes_owner and name != "__getitem__":
            return
        shapes = [", ".join(str(tuple(tensor.shape)) for tensor in group[:4]) for group in (there, here)]
        raise MixedDevices(f"{resolve_name(function) or name} got {shapes[0]} on {self.device} and {shapes[1]} on the CPU")
