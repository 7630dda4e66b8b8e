"""Helpers for notebooks: the house style of figures, and source code shown as an output."""

import inspect
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

import cnnlib


def use_house_style() -> None:
    """Draw all following figures in the book's style, at two pixels a point where a notebook shows them."""
    plt.style.use(Path(__file__).with_name("house.mplstyle"))
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # plain Python: figures go to files or windows
        return
    set_matplotlib_formats("retina")


class Source:
    """Source code of classes, functions or methods, read from the installed package; shows itself highlighted.

    Raises `TypeError` for something that has no Python source, as `inspect.getsource` does.
    """

    def __init__(self, *things: object):
        files = dict.fromkeys(Path(inspect.getsourcefile(thing)) for thing in things)
        self.files = [file.relative_to(Path(cnnlib.__file__).parents[1]).as_posix() for file in files]
        self.code = "\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in things)

    def __repr__(self) -> str:
        return self.code

    def _repr_markdown_(self) -> str:
        return f"From `{'`, `'.join(self.files)}`:\n\n```python\n{self.code}\n```"
