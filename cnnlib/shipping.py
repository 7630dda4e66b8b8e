"""From a trained network to one that is smaller and faster and gives the same answers, or nearly.

    folded = fold_batch_norm(model, (3, 224, 224))       # equal answers, fewer operations
    int8 = quantized(folded, batches_of_images)          # whole numbers of 8 bits inside; answers differ a little
    torch._inductor.config.freezing = True               # weights will not change any more
    fast = torch.compile(int8)                           # runs them as such, under torch.no_grad()

Export to ONNX and `torch.export` stands in `cnnlib.classify`; pruning and codes in `cnnlib.compression`.

- Jacob et al. Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference. CVPR 2018,
  arXiv:1712.05877.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from cnnlib.analysis.trace import Step, trace
from cnnlib.running import shapes_alone

BATCH_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"}
PRODUCTS = {"convolution", "_convolution", "linear", "addmm"}
FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def foldable(model: nn.Module, input_size: Sequence[int]) -> list[tuple[str, str]]:
    """(layer, batch norm) names, in the order of the pass: the norm follows the layer directly, and alone has its output.

    Not listed are norms that come first (pre-activation), that see a sum or a concatenation, whose layer is used
    twice, and layers whose weights are computed (parametrized, standardized, or by a hook before the pass).
    """
    model = shapes_alone(model)
    for layer in model.modules():  # whether a forward of one's own reads the bias that a norm becomes
        if isinstance(layer, FOLDABLE) and type(layer) not in FOLDABLE and layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(layer.weight[:, 0].flatten(1)[:, 0]))
    names = {id(module): name for name, module in model.named_modules()}
    record = trace(model, input_size)
    steps = [(step, node) for step in record.steps if isinstance(step, Step) for node in step.nodes]
    made = {id(value): (step, node) for step, node in steps for value in node.outputs}
    uses: dict[int, int] = {}
    calls: dict[int, int] = {}
    for step, node in steps:
        for value in node.inputs:
            uses[id(value)] = uses.get(id(value), 0) + 1
        if node.op in PRODUCTS | BATCH_NORMS:
            calls[id(step.call.module)] = calls.get(id(step.call.module), 0) + 1
    pairs = []
    for step, node in steps:
        if node.op not in BATCH_NORMS or id(node.inputs[0]) not in made:
            continue
        norm = step.call.module
        before, product = made[id(node.inputs[0])]
        layer = before.call.module
        own = {f"{names[id(layer)]}.weight", f"{names[id(layer)]}.bias"}
        read = {value.parameters for value in product.inputs if value.role == "parameter"}
        usual = type(layer) in FOLDABLE or isinstance(layer, FOLDABLE) and {(name,) for name in own} == read
        fits = (product.op in PRODUCTS and usual and uses[id(node.inputs[0])] == 1
                and calls[id(layer)] == calls[id(norm)] == 1 and not layer._forward_pre_hooks
                and isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None)
        if fits:
            pairs.append((names[id(layer)], names[id(norm)]))
    return pairs


def fold_batch_norm(model: nn.Module, input_size: Sequence[int]) -> nn.Module:
    """A copy in evaluation mode in which every batch norm that follows a convolution or linear layer is part of its weights.

    gamma (W x + b - mean) / sigma + beta = (gamma / sigma) W x + (gamma / sigma) (b - mean) + beta. Its place is taken
    by `nn.Identity`. `input_size` is (C, H, W): one pass finds what follows what, see `foldable`. Norms that
    follow something else stay.
    """
    copied = copy.deepcopy(model).eval()
    for layer, norm in foldable(copied, input_size):
        is_linear = isinstance(copied.get_submodule(layer), nn.Linear)
        fuse: Callable[..., nn.Module] = fusion.fuse_linear_bn_eval if is_linear else fusion.fuse_conv_bn_eval
        copied.set_submodule(layer, fuse(copied.get_submodule(layer), copied.get_submodule(norm)))
        copied.set_submodule(norm, nn.Identity())
    return copied


@contextlib.contextmanager
def exporting(model: nn.Module, images: Tensor, done: str = "exported") -> Iterator[None]:
    """Within it, whatever hinders the network from being exported (or `done`) from such images is a `ValueError` that
    names both."""
    try:
        yield
    except ImportError:  # of a package that is not there, and not the network's fault
        raise
    except Exception as error:  # whatever a forward may do that cannot be followed
        raise ValueError(f"{type(model).__name__} cannot be {done} from images of shape {tuple(images.shape)}: "
                         f"{error}") from error


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """No warnings, also of the loggers of these names."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def quantized(model: nn.Module, calibration: Iterable[Tensor]) -> nn.Module:
    """The network with weights and feature maps rounded to 8-bit whole numbers, after PyTorch 2 export quantization.

    `calibration` gives normalized batches (N, C, H, W) of some hundred training images: from them each map gets its scale.
    Weights have one scale for each output channel. What is returned takes batches of any size; run as it is it
    computes with rounded floats, which shows the accuracy; `torch.compile` makes integer arithmetic of it on x86, with
    `torch._inductor.config.freezing` on and under `torch.no_grad()`.
    Needs the package `torchao`. Raises `ValueError` without a batch, and for a network that PyTorch cannot export or
    torchao not quantize.
    """
    with _quiet("torchao", "torch.utils._pytree"):  # they tell which libraries for GPUs do not load, and of old names
        from torchao.quantization.pt2e import move_exported_model_to_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    batches = iter(calibration)
    first = next(batches, None)
    if first is None or len(first) < 2:
        raise ValueError("calibration has no batch of two images or more; give normalized batches of training images")
    model = copy.deepcopy(model).eval()
    any_size = {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    with torch.no_grad():
        with exporting(model, first):
            graph = torch.export.export(model, (first,), dynamic_shapes=(any_size,)).module()
        quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        with exporting(model, first, "quantized"):
            prepared = prepare_pt2e(graph, quantizer)
        for batch in (first, *batches):
            prepared(batch)
        return move_exported_model_to_eval(convert_pt2e(prepared))
