"""Explorers: ipywidgets that answer in Jupyter, in Colab, and on a built page without a kernel."""

from .convolution import ConvolutionArithmetic

__all__ = ["ConvolutionArithmetic"]
