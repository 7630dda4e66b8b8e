"""What a network costs and what its units see, for any `nn.Module`."""

from .cost import CostTable, Device, cost_table
from .footprint import Footprint, gradient_footprint
from .memory import TrainingMemory, training_memory
from .receptive_field import Field, Fields, receptive_field
from .signals import Signal, signals
from .trace import AnalysisError

__all__ = [
    "AnalysisError", "CostTable", "Device", "Field", "Fields", "Footprint", "Signal", "TrainingMemory", "cost_table",
    "gradient_footprint", "receptive_field", "signals", "training_memory",
]
