"""Running a network: its device, its precision, sizes of images, batch after batch in evaluation mode; what decays.

Whatever trains, tests, probes or classifies shares these. A batch is `(images, labels)`, on the device of the network.
"""

import copy
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.arranged import ProcessorConvolutions

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def best_device() -> torch.device:
    """The GPU if there is one, NVIDIA's, AMD's or Apple's; else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def name_of(device: torch.device) -> str:
    """What the device is called: a GPU by its model, a processor likewise where the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() if device.type == "cpu" else device.type


# --- precision --------------------------------------------------------------------------------------------------------


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; a GPU or a processor without them emulates it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    known = getattr(torch.cpu, "get_capabilities", dict)()  # newer PyTorch; it knows ARM's as well
    return any(ask() for ask in asked if ask) or any(bool(value) for name, value in known.items() if "bf16" in name)


def choose_precision(precision: str, device: torch.device) -> tuple[str, str]:
    """The precision to run in, and one line that says why.

    `"auto"` is bfloat16 where the device has instructions for it, float16 on other GPUs with tensor cores (training
    scales the loss there), float32 elsewhere. Raises `ValueError` for an unknown name.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}; choose one of {', '.join(map(repr, ('auto', *PRECISIONS)))}")
    where, real = name_of(device), has_bfloat16(device)
    if precision == "bfloat16" and not real:
        return precision, f"bfloat16 as asked for, which {where} only emulates: 'auto' would be faster"
    if precision != "auto":
        return precision, f"{precision} as asked for, on {where}"
    if real:
        return "bfloat16", f"bfloat16: {where} has instructions for it"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return "float16", f"float16 with a scaled loss: {where} has tensor cores, but no bfloat16"
    return "float32", f"float32: {where} has no fast 16 bits"


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Within it, products are computed in `precision`, one of PRECISIONS, and sums, norms and losses in float32.

    On a processor convolutions in bfloat16 are arranged as it is quick at them (`cnnlib.arranged`)."""
    half = PRECISIONS[precision]
    arranged = half is torch.bfloat16 and device.type == "cpu"
    with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
        with ProcessorConvolutions() if arranged else nullcontext():
            yield


# --- sizes ------------------------------------------------------------------------------------------------------------


def shapes_alone(model: nn.Module) -> nn.Module:
    """A copy on the meta device, in evaluation mode; weights are not copied."""
    own = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in model.buffers()}
    own |= {id(weight): nn.Parameter(torch.empty_like(weight, device="meta")) for weight in model.parameters()}
    return copy.deepcopy(model, own).eval()


LARGEST = 512  # side of the images up to which the smallest are looked for
NOTHING_LEFT = ("Kernel size can't be greater than actual input size", "Output size is too small",
                "Padding size should be less than the corresponding input dimension")  # PyTorch's words for small maps


def too_small(model: nn.Module, images: Tensor, error: RuntimeError) -> str:
    """What to say of images (N, C, H, W) with which `error` left a layer of the network too small a map, else "".

    The smallest square images that pass in evaluation mode are found by trying, without values.
    """
    if not any(words in str(error) for words in NOTHING_LEFT) or type(images) is not Tensor or images.dim() != 4:
        return ""  # another error; or what only stands for images, while a pass is traced
    try:
        copied = shapes_alone(model)
    except RuntimeError:  # it holds what cannot be copied
        return ""
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()

    def passes(side: int, objects: bool = False) -> bool:
        """Whether no layer fails; `objects` says what to answer where the network itself objects to the size."""
        try:
            with torch.no_grad():
                nn.Module.__call__(copied, images.new_empty(*images.shape[:2], side, side, device="meta"))
        except (RuntimeError, ValueError) as problem:
            return objects and isinstance(problem, ValueError)
        return True

    height, width = images.shape[2:]
    # some pass at one size only, and object to others
    sides = range(min(height, width), LARGEST + 1) if passes(LARGEST, objects=True) else ()
    least = next(filter(passes, sides), 0)
    if least <= min(height, width):  # then it is not a matter of size
        return ""
    return f"images of {height}x{width} are too small: {type(model).__name__} needs at least {least}x{least}"


# --- evaluation -------------------------------------------------------------------------------------------------------


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the network is in evaluation mode; afterwards every module is in its own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def layout_of(model: nn.Module) -> torch.memory_format:
    """`channels_last` if the network's kernels lie in memory that way, as images then should; else contiguous."""
    for parameter in model.parameters():
        if parameter.dim() == 4 and min(parameter.shape[:2]) > 1 and min(parameter.shape[2:]) > 1:
            last = parameter.is_contiguous(memory_format=torch.channels_last)
            return torch.channels_last if last else torch.contiguous_format
    return torch.contiguous_format


@torch.no_grad()
def predictions(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "float32"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (N, classes) in float32 and labels (N,) of one batch after the other, in evaluation mode.

    Empty batches are left out. The network must stay where it is meanwhile.
    """
    layout = layout_of(model)
    with evaluating(model):
        for images, labels in batches:
            if len(labels):
                used, _ = choose_precision(precision, images.device)
                with autocast(used, images.device):
                    logits = model(images.contiguous(memory_format=layout) if images.dim() == 4 else images)
                yield logits.float(), labels


def predict(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) in float32 and labels (N,) of all batches in their order, in evaluation mode.

    With several processes: of this process's part of every batch. Raises `ValueError` if there are no images.
    """
    parts = list(predictions(model, batches, precision))
    if not parts:
        raise ValueError("there are no images in these batches")
    return tuple(map(torch.cat, zip(*parts)))


# --- weight decay -----------------------------------------------------------------------------------------------------


def decays(parameter: Tensor) -> bool:
    """Whether weight decay applies: to weights of two or more axes, not to biases, norms and scales of channels.

    Trailing axes of length 1 do not count: a layer scale of shape (C, 1, 1) is one number a channel.
    """
    shape = list(parameter.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return len(shape) > 1


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups for an optimizer: the trained parameters that decay, and those that do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if decays(parameter)], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if not decays(parameter)], "weight_decay": 0.0},
    ]
