"""What a network costs and what its units see, for any `nn.Module`."""

from .cost import CostTable, Device, cost_table
from .trace import AnalysisError

__all__ = ["AnalysisError", "CostTable", "Device", "cost_table"]
