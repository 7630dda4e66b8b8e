"""What a network costs and sees, on the command line.

    python -m cnnlib.analysis resnet50                                  a network of this package, by name
    python -m cnnlib.analysis torchvision:resnet50                      one of torchvision's or timm's
    python -m cnnlib.analysis timm:convnext_tiny --depth 2              summed by modules, two levels deep
    python -m cnnlib.analysis my_package.my_file:Network --input 1x28x28        a class or function of yours, called without arguments
    python -m cnnlib.analysis resnet50 --field                          what the units of every layer see of the image
    python -m cnnlib.analysis resnet50 --memory --batch 128             what a training step keeps in memory
    python -m cnnlib.analysis resnet50 --compare resnet18 timm:resnet26t        several networks, a line each
    python -m cnnlib.analysis resnet50 --format csv > resnet50.csv      for a spreadsheet; also markdown, html
    python -m cnnlib.analysis resnet50 --draw resnet50.svg              a drawing, from the image to the answer

A multiply-add is one multiplication with its addition: half a FLOP count that counts both. `--input` is the shape of one sample,
channels first, without the batch; several inputs are several shapes.
"""

import argparse
import importlib
import sys
from dataclasses import dataclass

import torch
from torch import nn

from cnnlib import tables

from .cost import Costs, Row, cost_table
from .drawing import draw_file
from .fields import receptive_field
from .memory import OPTIMIZER_STATES, training_memory

FORMATS = {"text": str, "markdown": tables.Printed.to_markdown, "html": tables.Printed.to_html,
           "csv": lambda table: table.to_csv().rstrip("\n")}


@dataclass
class Compared(Row):
    """One network in a comparison."""

    peak_bytes: int = 0


def load(name: str) -> tuple[nn.Module, tuple[int, ...] | None]:
    """The network of this name, in evaluation mode, and its input size, None if it says none.

    Raises `ValueError`, in one line, for a name that leads nowhere."""
    where, colon, what = name.partition(":")
    if not colon:
        from cnnlib.registry import create_model, find_variant

        return on_meta(lambda: create_model(name)), find_variant(name).input_size
    try:
        if where in ("torchvision", "timm"):  # timm imports torchvision as well
            from cnnlib.vision import torchvision
        if where == "torchvision":
            return on_meta(lambda: torchvision.models.get_model(what, weights=None)), None
        make = importlib.import_module(where)
        if where == "timm":
            model = on_meta(lambda: make.create_model(what))
            return model, getattr(model, "default_cfg", {}).get("input_size")
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"{name}: {error}") from None
    for part in what.split("."):
        if not hasattr(make, part):
            raise ValueError(f"{name}: {where} has no {what!r}")
        make = getattr(make, part)
    return (make.eval() if isinstance(make, nn.Module) else on_meta(make)), None


def on_meta(make) -> nn.Module:
    """What `make` builds, without memory where it can be built so. Raises `TypeError` if that is no network."""
    try:
        with torch.device("meta"):
            model = make()
    except NotImplementedError:  # its constructor computes
        model = make()
    if not isinstance(model, nn.Module):
        raise TypeError(f"a network is an nn.Module, and this is a {type(model).__name__}")
    return model.eval()


def shape(text: str) -> tuple[int, ...]:
    """"3x224x224" -> (3, 224, 224)"""
    try:
        return tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 3x224x224") from None


def parse(arguments: list[str] | None) -> argparse.Namespace:
    head, _, rest = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="python -m cnnlib.analysis", description=head, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="NAME, torchvision:NAME, timm:NAME or package.module:CLASS")
    parser.add_argument("--input", type=shape, nargs="+", metavar="SHAPE", help="such as 3x224x224; by default the network's own")
    parser.add_argument("--batch", type=int, default=1, help="samples in a batch (1)")
    parser.add_argument("--field", action="store_true", help="receptive fields: size, stride and start in pixels of the input")
    parser.add_argument("--memory", action="store_true", help="bytes that one training step keeps")
    parser.add_argument("--optimizer", default="momentum", choices=OPTIMIZER_STATES, help="for --memory (momentum)")
    parser.add_argument("--backward", action="store_true", help="multiply-adds of the backward pass beside the forward pass")
    parser.add_argument("--depth", type=int, metavar="N", help="sum by modules, N levels deep")
    parser.add_argument("--columns", metavar="A,B", help="columns and their order, such as name,macs,macs%%,params")
    parser.add_argument("--compare", nargs="+", default=[], metavar="NETWORK", help="a line for each of these networks too")
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument("--draw", metavar="FILE.svg", help="draw the network into this file instead")
    parser.add_argument("--partial", action="store_true", help="go as far as a network can be followed, and say where that ends")
    return parser.parse_args(arguments)


def report(options: argparse.Namespace):
    """The table that was asked for, or the path of the drawing."""
    def given(name):
        model, own = load(name)
        sizes = options.input or [own or (3, 224, 224)]
        return model, sizes[0] if len(sizes) == 1 else sizes

    if options.draw and options.compare:
        raise ValueError("--draw draws one network; leave out --compare")
    common = {"batch_size": options.batch, "strict": not options.partial}
    if options.compare:
        rows, note = [], ""
        for name in (options.network, *options.compare):
            model, size = given(name)
            table = cost_table(model, size, **common)
            rows.append(Compared.of([table.total], name=name, input_shape=size, peak_bytes=table.peak_bytes))
            note = table.note
        columns = ("name", "input_shape", "params", "macs", "activations", "peak_bytes")
        table = Costs(rows, None, note).with_columns(*columns)
        table.title_of = Costs.title_of | {"name": "network"}
        return table
    model, size = given(options.network)
    if options.draw:
        return draw_file(model, size, options.draw, title=options.network)
    if options.field:
        return receptive_field(model, size, **common)
    if options.memory:
        table = training_memory(model.train(), size, batch_size=options.batch, optimizer=options.optimizer)
        parts = ("weights", "buffers", "gradients", "optimizer_state", "saved", "total_bytes", "peak")
        table.note += "\n" + ", ".join(f"{part.replace('_', ' ')} {tables.short(getattr(table, part))}B" for part in parts)
        return table
    table = cost_table(model, size, backward=options.backward, **common)
    if options.depth is not None:
        table = table.tree(options.depth)
    columns = options.columns.split(",") if options.columns else [*table.columns, *["backward"] * options.backward]
    return table.with_columns(*columns, short=table.short)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        result = report(options)
        text = f"drawn in {result}" if options.draw else FORMATS[options.format](result)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
