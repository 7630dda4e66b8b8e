"""Explorers: ipywidgets that answer in Jupyter, in Colab, and on a built page without a kernel."""

from .block import BlockDesigner
from .convolution import ConvolutionArithmetic
from .cost_table import CostTableExplorer
from .follow import FollowPhotograph
from .fusion import BranchFusion
from .inception import InceptionDesigner
from .map import ArchitectureMap
from .network import NetworkExplorer
from .normalization import NormalizationAxes
from .question import Question
from .receptive_field import ReceptiveFieldExplorer
from .stack import StackDesigner, conv, pool

__all__ = [
    "ArchitectureMap", "BlockDesigner", "BranchFusion", "ConvolutionArithmetic", "CostTableExplorer", "FollowPhotograph",
    "InceptionDesigner", "NetworkExplorer", "NormalizationAxes", "Question", "ReceptiveFieldExplorer", "StackDesigner", "conv", "pool",
]
