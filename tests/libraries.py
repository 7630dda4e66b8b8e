"""Libraries that tests compare with, and what imports them, each imported when a test first uses it: collecting stays quick.

    from libraries import published, stats, timm, torchvision
"""

import importlib

import pytest


class Late:
    """A module, or what `attribute` of it is, imported with the first use of one of its names, `before` ahead of it."""

    def __init__(self, module: str, attribute: str = "", before: str = ""):
        self.__dict__.update(_module=module, _attribute=attribute, _before=before)

    def __getattr__(self, name):
        if name.startswith("_") or name == "pytestmark":  # what pytest asks of everything that it finds in a file of tests
            raise AttributeError(name)
        if self._before:
            importlib.import_module(self._before)
        module = importlib.import_module(self._module)
        return getattr(getattr(module, self._attribute) if self._attribute else module, name)

    def __setattr__(self, name, value):  # a monkeypatch would be lost
        raise AttributeError(f"set {name} on {self._module} itself")


stats = Late("scipy.stats")
torchvision = Late("cnnlib.vision", "torchvision")
published = Late("cnnlib.published")
timm = Late("timm", before="cnnlib.vision")  # it imports torchvision itself, which may need its help


def timm_or_skip():
    """timm itself, or the test is skipped where it is not there."""
    importlib.import_module("cnnlib.vision")
    return pytest.importorskip("timm")
