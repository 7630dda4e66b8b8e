"""What a network costs and what its units see, for any `nn.Module`."""

from .cost import CostTable, Device, cost_table
from .receptive_field import Field, receptive_field
from .trace import AnalysisError

__all__ = ["AnalysisError", "CostTable", "Device", "Field", "cost_table", "receptive_field"]
