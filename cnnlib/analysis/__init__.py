"""What a network costs and what its units see, for any `nn.Module`."""

from .cost import CostTable, Device, cost_table
from .diagram import Diagram, diagram
from .fields import Field, Fields, receptive_field
from .footprint import Footprint, gradient_footprint, gradient_footprints
from .inputs import Input
from .inside import aliased_share, deconvolve, grad_cam, last_maps, occlusion_map, strongest_responses
from .memory import TrainingMemory, training_memory
from .signals import Signal, signals
from .watch import AnalysisError, outputs_of

__all__ = [
    "AnalysisError", "CostTable", "Device", "Diagram", "Field", "Fields", "Footprint", "Input", "Signal",
    "TrainingMemory", "aliased_share", "cost_table", "deconvolve", "diagram", "grad_cam", "gradient_footprint",
    "gradient_footprints", "last_maps", "occlusion_map", "outputs_of", "receptive_field", "signals",
    "strongest_responses", "training_memory",
]
