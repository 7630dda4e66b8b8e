"""Other people's libraries that tests compare with, each imported when a test first uses it: collecting tests stays quick.

    from libraries import stats, timm, torchvision
"""

import importlib

import pytest


class Late:
    """A module, or what `attribute` of it is, imported with the first use of one of its names."""

    def __init__(self, module: str, attribute: str = ""):
        self.__dict__.update(_module=module, _attribute=attribute)

    def __getattr__(self, name):
        module = importlib.import_module(self._module)
        return getattr(getattr(module, self._attribute) if self._attribute else module, name)

    def __setattr__(self, name, value):  # a monkeypatch would be lost
        raise AttributeError(f"set {name} on {self._module} itself")


stats = Late("scipy.stats")
torchvision = Late("cnnlib.vision", "torchvision")


class _Timm(Late):
    def __getattr__(self, name):
        importlib.import_module("cnnlib.vision")  # timm imports torchvision itself, which may need its help
        return super().__getattr__(name)


timm = _Timm("timm")


def timm_or_skip():
    """timm itself, or the test is skipped where it is not there."""
    importlib.import_module("cnnlib.vision")
    return pytest.importorskip("timm")
