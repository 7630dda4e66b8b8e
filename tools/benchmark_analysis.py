"""Time cnnlib's cost tables and receptive fields beside those of other tools, and write the table that the book quotes.

    python tools/benchmark_analysis.py [--repeats 7] [--csv FILE]

Every network stands on the meta device. The contestants take turns, and the median of their times counts, so that a busy
machine slows all of them. Peers that are not installed are left out: torchinfo, rfa_toolbox.
"""

import argparse
import csv
import statistics
import sys
import time
import warnings

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cnnlib
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.vision import torchvision

SIZE = (3, 224, 224)


def by_counter(model):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *SIZE, device="meta"))
    return counter.get_total_flops() // 2


def by_torchinfo(model):
    import torchinfo

    return torchinfo.summary(model, (1, *SIZE), device="meta", verbose=0).total_mult_adds


def by_rfa_toolbox(model):
    import collections
    import collections.abc

    for name in ("Iterable", "Mapping", "Sequence", "Callable"):  # rfa_toolbox imports them from where they stood until 3.9
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    from rfa_toolbox import create_graph_from_pytorch_model

    graph = create_graph_from_pytorch_model(model, input_res=(1, *SIZE))
    return max(max(node.receptive_field_sizes, default=0) for node in graph.nodes)


def times(contestants, model, repeats):
    """Median seconds of each contestant, who take turns; None for one that is not installed or fails."""
    runs = {}
    for name, run in contestants.items():
        try:
            run(model)
            runs[name] = []
        except Exception as error:
            print(f"  {name} left out: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
    for _ in range(repeats):
        for name in runs:
            start = time.perf_counter()
            contestants[name](model)
            runs[name].append(time.perf_counter() - start)
    return {name: statistics.median(runs[name]) if name in runs else None for name in contestants}


def build(name, device="meta"):
    with torch.device(device):
        return torchvision.models.get_model(name).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--csv", help="also write the rows to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []

    costs = {"cnnlib": lambda model: cost_table(model, SIZE), "FlopCounterMode": by_counter, "torchinfo": by_torchinfo}
    for name in ("resnet50", "resnet152", "mobilenet_v3_large", "densenet201"):
        rows += [("cost table", name, tool, seconds) for tool, seconds in times(costs, build(name), options.repeats).items()]

    fields = {"cnnlib": lambda model: [one.size for one in receptive_field(model, SIZE).values()], "rfa_toolbox": by_rfa_toolbox}
    for name in ("resnet50", "densenet201", "mobilenet_v2"):
        repeats = min(options.repeats, 3)
        rows += [("receptive fields", name, tool, seconds)
                 for tool, seconds in times(fields, build(name, "cpu"), repeats).items()]

    for depth in (25, 50, 100, 200, 400):
        with torch.device("meta"):
            chain = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(depth)])
        rows += [(f"{depth} layers: {what}", "chain", "cnnlib", times({"cnnlib": run}, chain, options.repeats)["cnnlib"])
                 for what, run in (("cost table", costs["cnnlib"]), ("receptive fields", fields["cnnlib"]))]

    start = time.perf_counter()
    for name in cnnlib.list_models():
        with torch.device("meta"):
            cost_table(cnnlib.create_model(name), cnnlib.registry.find_variant(name).input_size)
    rows.append((f"cost tables of all {len(cnnlib.list_models())} networks, built on meta", "zoo", "cnnlib",
                 time.perf_counter() - start))

    ours = {(task, network): seconds for task, network, tool, seconds in rows if tool == "cnnlib"}
    print(f"{'task':<52}{'network':<20}{'tool':<16}{'ms':>10}{'ratio':>8}")
    for task, network, tool, seconds in rows:
        shown = ("-", "-") if seconds is None else (f"{1e3 * seconds:.1f}", f"{seconds / ours[task, network]:.1f}")
        print(f"{task:<52}{network:<20}{tool:<16}{shown[0]:>10}{shown[1]:>8}")
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("task", "network", "tool", "seconds"))
            writer.writerows(rows)


if __name__ == "__main__":
    main()
