"""What the tests of the networks share: builds on the meta device, counts, small inputs, random tensors."""

import csv
import math
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cnnlib import create_model
from cnnlib.registry import find_variant


with (Path(__file__).parents[1] / "data" / "zoo.csv").open(encoding="utf-8", newline="") as _file:
    TABLE = {row["name"]: row for row in csv.DictReader(_file)}  # tests/test_zoo_table.py compares it with the networks


@cache
def on_meta(name: str) -> nn.Module:
    """The network on the meta device, built once; leave it as it is."""
    with torch.device("meta"):
        return create_model(name)


def count_params(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class Counter(TorchDispatchMode):
    """The sum of PyTorch's own formulas; its `FlopCounterMode` also follows modules and takes twice as long."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        if (formula := flop_registry.get(operator.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def count_macs(model: nn.Module, input_size: tuple[int, int, int]) -> tuple[int, torch.Size]:
    """Multiply-adds of one image by PyTorch's own formulas, and the shape of the logits; `model` is on meta."""
    with torch.no_grad(), Counter() as counter:
        logits = model.eval()(torch.empty(1, *input_size, device="meta"))
    return counter.flops // 2, logits.shape


@cache
def macs_and_shape(name: str) -> tuple[int, torch.Size]:
    """`count_macs` of a network of ours at its own input size, counted once."""
    return count_macs(on_meta(name), find_variant(name).input_size)


def kind(name: str) -> tuple:
    """What networks share whose rows differ in nothing but numbers: family, class, and switches such as `norm`."""
    variant = find_variant(name)
    return variant.family, variant.network, *(
        (key, value) for key, value in sorted(variant.config.items())
        if value is None or isinstance(value, (str, bool)) or callable(value)
    )


def size_of(name: str) -> tuple[int, int]:
    """(parameters, modules) as the table of all networks has them, so that collecting tests builds nothing.

    A network that is not in the table yet is counted; one that cannot be built has zero, so that its tests run and show why.
    """
    if name in TABLE:
        return int(TABLE[name]["params"]), int(TABLE[name]["modules"])
    try:
        model = on_meta(name)
    except Exception:
        return 0, 0
    return count_params(model), sum(1 for _ in model.modules())


def smallest_of_each_kind(names: list[str]) -> list[str]:
    """The network with the fewest parameters of each kind."""
    return list({kind(name): name for name in sorted(names, key=size_of, reverse=True)}.values())


def shallow(name: str) -> dict[str, tuple[int, ...]]:
    """Arguments for `create_model` that leave two blocks in each stage of a network that is made of equal ones."""
    depths = find_variant(name).config.get("depths")
    return {"depths": tuple(min(depth, 2) for depth in depths)} if depths else {}


def is_quick(name: str, most_params: float = 8e6, most_modules: int = 450) -> bool:
    """Whether a CPU runs the network in well under a second, judged by counting parameters and modules."""
    params, modules = size_of(name)
    return params <= most_params and modules <= most_modules


def attends(model: nn.Module) -> bool:
    """Whether the network, ours or timm's, is a MobileNetV4 with attention."""
    return any(type(module).__name__ == "MobileAttention" for module in model.modules())


@cache
def smallest_input(name: str) -> tuple[int, int, int]:
    """The smallest of a few image sizes that the network takes in training, found on the meta device.

    With attention at least 64: of a single place there is nothing to choose, and a query has no gradient.
    """
    channels, *own = find_variant(name).input_size
    model = on_meta(name).train()
    for size in (32, 48, 64, 96, 128, 160, 192)[2 if attends(model) else 0:]:
        if size < min(own):
            try:
                model(torch.empty(2, channels, size, size, device="meta"))
                return channels, size, size
            except (RuntimeError, ValueError):
                continue
    return channels, *own


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor of the state new random values, batch-norm statistics included, at a scale that carries signals.

    Weights keep the variance of a signal through ReLU layers (He), everything else lies near its usual value. Two
    tensors of equal shape that trade places therefore change the logits.
    """
    generator = torch.Generator().manual_seed(seed)
    variances = {f"{name}.running_var" for name, module in model.named_modules() if hasattr(module, "running_var")}
    # sums of many branches, and products, would saturate gates (ByobNet is timm's name of RepVGG and MobileOne)
    many = len(variances) > 150 or type(model).__name__ in ("StarNet", "RepVGG", "MobileOne", "ByobNet")
    scale = 0.25 if attends(model) else 0.5 if many else 1.0  # a saturated softmax magnifies rounding
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                tensor.random_(1, 100, generator=generator)
            elif tensor.ndim > 1 and tensor[0].numel() > 1:
                bound = math.sqrt(6 / tensor[0].numel())
                tensor.uniform_(-bound, bound, generator=generator)
            elif name in variances:
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith("weight"):
                tensor.uniform_(0.5 * scale, 1.5 * scale, generator=generator)
            else:
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return model


def with_random_tensors(name: str, seed: int = 0, **overrides) -> nn.Module:
    """The network with `randomize`'s values, without the time to draw those of its own start first."""
    with torch.device("meta"):
        model = create_model(name, **overrides)
    assert {buffer for buffer, _ in model.named_buffers()} <= model.state_dict().keys(), "a buffer outside of the state"
    return randomize(model.to_empty(device="cpu"), seed)
