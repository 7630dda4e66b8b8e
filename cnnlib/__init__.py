"""Convolutional network architectures, written out in full, in one vocabulary.

Three look-ups are all that stands here:

    from cnnlib import create_model, list_models, describe
"""

from cnnlib import models as _models  # registers every family
from cnnlib.registry import create_model, describe, list_models

__version__ = "0.2.0"
__all__ = ["create_model", "describe", "list_models"]
