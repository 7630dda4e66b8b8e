"""Time cnnlib's cost tables and receptive fields beside those of other tools, and write the table that the book quotes.

    python tools/benchmark_analysis.py [--repeats 7] [--output data/results/benchmark_analysis.json]

The contestants take turns in one process, and the median of their times counts, so that a busy machine slows all of
them. Both the time of the process (CPU) and the time of the clock (wall) are written. Peers that are not installed
are left out: torchinfo, rfa_toolbox (`pip install --no-deps --ignore-requires-python rfa_toolbox graphviz attrs`).
"""

import argparse
import collections
import collections.abc
import importlib.metadata
import importlib.util
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cnnlib
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.registry import find_variant
from cnnlib.train.experiments import hardware, write_record
from cnnlib.vision import torchvision

SIZE = (3, 224, 224)
OUTPUT = Path(__file__).parents[1] / "data/results/benchmark_analysis.json"


# The contestants: each takes a model and returns a number that the others can be compared with


def costs_by_cnnlib(model):
    return cost_table(model, SIZE).total.macs


def costs_by_counter(model):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *SIZE, device="meta"))
    return counter.get_total_flops() // 2


def costs_by_torchinfo(model):
    import torchinfo

    return torchinfo.summary(model, (1, *SIZE), device="meta", verbose=0).total_mult_adds


def fields_by_cnnlib(model):
    fields = receptive_field(model, SIZE).values()
    return max(one.size[0] for one in fields if one.units[0] > 1)


def fields_by_rfa_toolbox(model):
    collections.Sequence = collections.abc.Sequence  # imported from where it stood until Python 3.9
    from rfa_toolbox import create_graph_from_pytorch_model

    graph = create_graph_from_pytorch_model(model, input_res=(1, *SIZE))
    sizes = [float(numpy.max(size)) for node in graph.all_layers for size in node.receptive_field_sizes]
    return int(max(size for size in sizes if size < float("inf")))


COSTS = {"cnnlib": costs_by_cnnlib, "FlopCounterMode": costs_by_counter, "torchinfo": costs_by_torchinfo}
FIELDS = {"cnnlib": fields_by_cnnlib, "rfa_toolbox": fields_by_rfa_toolbox}


# Time


def timed(run, *args):
    """(CPU seconds, wall seconds) of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    run(*args)
    return time.process_time() - cpu, time.perf_counter() - wall


def compare(task, network, contestants, model, repeats):
    """One row for each contestant that runs: medians over turns that they take one after the other."""
    answers = {}
    for name, run in contestants.items():  # the first call also imports and compiles: not timed
        try:
            answers[name] = run(model)
        except ImportError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    times = {name: [] for name in answers}
    for _ in range(repeats):
        for name, taken in times.items():
            taken.append(timed(contestants[name], model))
    rows = []
    for name, taken in times.items():
        cpu, wall = map(statistics.median, zip(*taken))
        rows.append({"task": task, "network": network, "tool": name, "cpu_ms": 1e3 * cpu, "wall_ms": 1e3 * wall,
                     "answer": answers[name]})
    for row in rows:
        row["cpu_ratio"], row["wall_ratio"] = (row[kind] / rows[0][kind] for kind in ("cpu_ms", "wall_ms"))
        print(f"{task:<18}{network:<22}{row['tool']:<16}{row['cpu_ms']:>10.1f} ms CPU {row['wall_ms']:>10.1f} ms"
              f"{row['cpu_ratio']:>8.1f} x CPU {row['wall_ratio']:>8.1f} x   {row['answer']:,}", flush=True)
    return rows


def build(name, device="meta"):
    with torch.device(device):
        return torchvision.models.get_model(name).eval()


def chain(depth):
    with torch.device("meta"):
        return nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(depth)])


def whole_zoo():
    """Seconds to build all networks on the meta device, and to make their cost tables."""
    building = tables = (0.0, 0.0)
    for name in cnnlib.list_models():
        kept = []
        with torch.device("meta"):
            taken = timed(lambda: kept.append(cnnlib.create_model(name).eval()))
        building = tuple(map(sum, zip(building, taken)))
        tables = tuple(map(sum, zip(tables, timed(cost_table, kept[0], find_variant(name).input_size))))
    zoo = {"networks": len(cnnlib.list_models()), "build_cpu_s": building[0], "build_wall_s": building[1],
           "tables_cpu_s": tables[0], "tables_wall_s": tables[1]}
    print(", ".join(f"{key} {value:.1f}" for key, value in zoo.items()), flush=True)
    return zoo


def imports(repeats):
    """CPU and wall seconds of `import torch` and of `import cnnlib`, each in a fresh interpreter, taking turns."""
    code = ("import time; cpu, wall = time.process_time(), time.perf_counter(); import {}; "
            "print(time.process_time() - cpu, time.perf_counter() - wall)")
    taken = {"torch": [], "cnnlib": []}
    for _ in range(repeats):
        for module, times in taken.items():
            out = subprocess.check_output([sys.executable, "-c", code.format(module)], text=True)
            times.append([float(number) for number in out.split()])
    medians = {module: list(map(statistics.median, zip(*times))) for module, times in taken.items()}
    result = {f"{module}_{kind}_s": medians[module][i] for module in medians for i, kind in enumerate(("cpu", "wall"))}
    result |= {f"{kind}_ratio": medians["cnnlib"][i] / medians["torch"][i] for i, kind in enumerate(("cpu", "wall"))}
    print(", ".join(f"{key} {value:.3f}" for key, value in result.items()), flush=True)
    return result


def peers():
    """Versions of the packages that were compared, as far as they are installed."""
    return {name: importlib.metadata.version(name) for name in ("torchvision", "torchinfo", "rfa_toolbox")
            if importlib.util.find_spec(name)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows, growth = [], []
    for name in ("resnet50", "resnet152", "mobilenet_v3_large", "densenet201"):
        rows += compare("cost table", name, COSTS, build(name), options.repeats)
    for name in ("resnet50", "densenet201", "mobilenet_v2"):
        rows += compare("receptive fields", name, FIELDS, build(name, "cpu"), min(options.repeats, 3))
    for depth in (25, 50, 100, 200, 400):
        for task, run in (("cost table", costs_by_cnnlib), ("receptive fields", fields_by_cnnlib)):
            growth += compare(task, f"{depth} convolutions", {"cnnlib": run}, chain(depth), options.repeats)
    write_record(options.output, {
        "description": "Medians of runs in turn, one process; ratios are to cnnlib; answers: multiply-adds, largest field of "
                       "a layer with more than one unit",
        "repeats": options.repeats, "rows": rows, "growth": growth, "zoo": whole_zoo(), "import": imports(options.repeats),
        "hardware": hardware(torch.device("cpu")), "packages": peers(),
    })


if __name__ == "__main__":
    main()
