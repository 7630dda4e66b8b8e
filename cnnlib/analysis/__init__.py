"""What a network costs and what its units see, for any `nn.Module`."""

from .cost import CostTable, Device, cost_table
from .footprint import Footprint, gradient_footprint
from .memory import TrainingMemory, training_memory
from .receptive_field import Field, Fields, receptive_field
from .trace import AnalysisError

__all__ = [
    "AnalysisError", "CostTable", "Device", "Field", "Fields", "Footprint", "TrainingMemory", "cost_table",
    "gradient_footprint", "receptive_field", "training_memory",
]
