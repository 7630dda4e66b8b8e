"""Explorers: ipywidgets that answer in Jupyter, in Colab, and on a built page without a kernel."""

from .convolution import ConvolutionArithmetic
from .cost_table import CostTableExplorer

__all__ = ["ConvolutionArithmetic", "CostTableExplorer"]
