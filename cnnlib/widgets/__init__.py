"""Explorers: ipywidgets that answer in Jupyter, in Colab, and on a built page without a kernel."""

from .convolution import ConvolutionArithmetic
from .cost_table import CostTableExplorer
from .receptive_field import ReceptiveFieldExplorer
from .stack import StackDesigner, conv, pool

__all__ = ["ConvolutionArithmetic", "CostTableExplorer", "ReceptiveFieldExplorer", "StackDesigner", "conv", "pool"]
