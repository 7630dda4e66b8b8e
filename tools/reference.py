"""The page chapters/reference.md: what `cnnlib` offers, from its docstrings.

    python tools/reference.py               write it
    python tools/reference.py --check       write nothing; fail if it would change
"""

import argparse
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import cnnlib.models

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "chapters" / "reference.md"
MODULES = ("cnnlib", "cnnlib.analysis", "cnnlib.train", "cnnlib.data", "cnnlib.plots", "cnnlib.notebook", "cnnlib.widgets",
           "cnnlib.layers", "cnnlib.segmentation", "cnnlib.features", "cnnlib.compression",
           "cnnlib.transfer")
INTRODUCTION = """\
# `cnnlib` reference

What the package offers, made from its docstrings. Chapters show how the parts are used; this page is for looking things up. Shapes are
`(N, C, H, W)`; `params` counts trained numbers, `macs` multiply-adds of one image without biases.
"""


def public(module: ModuleType) -> list[tuple[str, object]]:
    """Names and things that a module offers: its `__all__`, or the functions and classes that are written in it."""
    names = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items()
        if not name.startswith("_") and inspect.getmodule(thing) is module
        and (inspect.isclass(thing) or inspect.isfunction(thing))]
    things = [(name, getattr(module, name)) for name in names]
    return [(name, thing) for name, thing in things if inspect.isclass(thing) or inspect.isroutine(thing)]


def signature(name: str, thing: object) -> str:
    """The call as its source has it, defaults included."""
    try:
        text = str(inspect.signature(thing))
    except ValueError:
        return name
    text = re.sub(r",? _\w+: [^=]*?(?=\) ->)", "", text)  # what only the class itself sets
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", text)
    text = text.replace("torch.Tensor", "Tensor").replace("collections.abc.", "").replace("torch.nn.modules.module.", "nn.")
    return f"{name}{text}"


def entry(name: str, thing: object) -> str:
    methods = [] if not inspect.isclass(thing) else [
        (key, value) for key, value in vars(thing).items()
        if not key.startswith("_") and inspect.isfunction(value) and value.__doc__]
    parts = [f"### `{name}`", code(signature(name, thing)), prose(thing)]
    parts += [f"`.{key}`: {prose(value)}" for key, value in methods if key != "forward"]
    return "\n\n".join(part for part in parts if part)


def code(text: str) -> str:
    """Code in lines that a page can show whole: a long call gets one line for each argument."""
    head, _, rest = text.partition("(")
    if len(text) > 90 and rest:
        inside, _, result = rest.rpartition(")")
        text = f"{head}(\n" + "\n".join(f"    {part}," for part in split_arguments(inside)) + f"\n){result}"
    return f"```python\n{text}\n```"


def split_arguments(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def prose(thing: object) -> str:
    """A docstring as Markdown: its list of attributes becomes a list."""
    text, _, attributes = textwrap.dedent(inspect.getdoc(thing) or "").strip().partition("Attributes:\n")
    entries = re.sub(r"^    (\w+): ", r"- `\1`: ", attributes, flags=re.M)
    return text + re.sub(r"^ {8}", "  ", entries, flags=re.M)


def as_page() -> str:
    sections = [INTRODUCTION]
    for name in MODULES:
        module = importlib.import_module(name)
        entries = [entry(*pair) for pair in public(module)]
        sections.append("\n\n".join([f"## `{name}`", prose(module), *entries]))
    families = [importlib.import_module(f"cnnlib.models.{info.name}")
                for info in pkgutil.iter_modules(cnnlib.models.__path__)]
    sections.append("## Families\n\nOne file each; [All networks](zoo.md) lists their variants.")
    sections += [f"### `{family.__name__}`\n\n{prose(family)}" for family in families]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page would change")
    if parser.parse_args(arguments).check:
        same = PAGE.read_text(encoding="utf-8") == as_page()
        print("up to date" if same else f"{PAGE.name} is not up to date: run tools/reference.py")
        return not same
    PAGE.write_text(as_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
