"""How deep a network is, as papers count it: layers with weights on the longest path from the input to the output."""

from torch import nn

from .inputs import InputSize
from .ops import macs
from .trace import Trace, trace


def depth(model: nn.Module, input_size: InputSize) -> int:
    """Convolutions and fully connected layers on the longest path through `model`, from the traced graph.

    `input_size` is that of `trace`; the model is taken in the mode in which it is. A path through a factor that is
    spread over a map, the gate of squeeze and excitation, does not count: papers leave it out.
    """
    return depth_of(trace(model, input_size))


def depth_of(record: Trace) -> int:
    """The same of a forward pass that was recorded already."""
    length = {}  # of the longest path to a value
    for node in record.nodes():
        has_weights = macs(node) > 0 and any(value.parameters for value in node.inputs)
        sources = node.inputs
        if node.op.startswith("mul"):
            most = max(value.numel for value in sources)
            sources = [value for value in sources if value.numel == most]
        longest = max((length.get(value, 0) for value in sources), default=0) + has_weights
        for value in node.outputs:
            length[value] = longest
    return max(length.get(value, 0) for value in record.outputs)
