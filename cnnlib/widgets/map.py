"""The map of architectures: every network of the package by accuracy, work, size, time and year."""

import re
import statistics
from collections.abc import Sequence

import traitlets

from cnnlib.data import book_file, load_result, load_table

from .base import Explorer, WrongValue, check_choice, module, style

# Families by what drove them; the colour and the fill of a mark are its group's, its shape is the family's own.
GROUPS = {
    "Classics and Inception": ["alexnet", "zfnet", "nin", "vgg", "googlenet", "lenet", "inception_v3", "xception"],
    "Residual": ["resnet", "preresnet", "wide_resnet", "resnext", "senet", "resnet_d", "bit", "nfnet"],
    "Dense and fractal": ["densenet", "fractalnet", "cspdarknet", "rdnet"],
    "Made small": ["squeezenet", "mobilenet", "shufflenet", "efficientnet", "efficientnet_lite", "mnasnet",
                   "mobilenet_v4", "starnet"],
    "Searched and modern": ["nasnet", "regnet", "convnext", "convnext_v2", "repvgg"],
}
QUANTITIES = {  # name -> what an axis says
    "top1": "Top-1 accuracy (%)",
    "top5": "Top-5 accuracy (%)",
    "macs": "Multiply-adds",
    "params": "Parameters",
    "activations": "Activations",
    "milliseconds": "Time of one image (ms)",
    "depth": "Layers in depth",
    "field": "Receptive field (pixels)",
    "year": "Year",
}
SIZES = ("", "params", "macs", "activations", "milliseconds")
COLUMNS = ("name", "family", "year", "side", "params", "macs", "activations", "depth", "field", "milliseconds")
SOURCES = {
    "papers": "papers (ImageNet)",
    "torchvision": "torchvision (ImageNet)",
    "cifar10": "papers (CIFAR-10)",
    "measured": "this book (CIFAR-10)",
}


class ArchitectureMap(Explorer):
    """Every network as a mark on two axes of your choice, with the efficient frontier.

        ArchitectureMap()
        ArchitectureMap("measured", x="params", families=["resnet", "densenet"], network="resnet20")

    `source` says whose accuracies are shown, one at a time: "papers" (ImageNet, as the authors published it), "torchvision"
    (ImageNet, the weights of that library, all tested with one central crop), "cifar10" (as published), and "measured"
    (CIFAR-10, this book's own benchmark, the mean over seeds with the lowest and the highest), once its record is there. Work, size
    and depth are computed here for every network. Traits: `source`; `x` and `y`, each a key of `QUANTITIES`; `size` of the
    marks, one of `SIZES`; `scale` of counts and times, "log" or "linear"; `families` to show; `network`, the chosen mark's
    name or "". Axes other than accuracy show the networks that have no accuracy in this source, too.

    Raises `ValueError` for a name that is not one of these, and `FileNotFoundError` where the book's tables are not at hand.
    """

    _esm = module("map")
    _css = style("map")
    source = traitlets.Unicode().tag(sync=True)
    x = traitlets.Unicode().tag(sync=True)
    y = traitlets.Unicode().tag(sync=True)
    size = traitlets.Unicode().tag(sync=True)
    scale = traitlets.Unicode().tag(sync=True)
    families = traitlets.List().tag(sync=True)
    network = traitlets.Unicode().tag(sync=True)

    def __init__(self, source: str = "papers", *, x: str = "macs", y: str = "top1", size: str = "params", scale: str = "log",
                 families: Sequence[str] | None = None, network: str = "vgg16"):
        times, clock = _latency()
        networks = _networks(times)
        place = {row[0]: number for number, row in enumerate(networks)}
        makers = {"papers": _papers, "torchvision": _torchvision, "cifar10": _cifar10, "measured": _measured}
        sources = []
        for name, make in makers.items():
            marks, note = make()
            if marks:
                sources.append({"name": name, "title": SOURCES[name], "note": note, "small": name in ("cifar10", "measured"),
                                "marks": [[place[mark[0]], *mark[1:]] for mark in marks]})
        quantities = {name: title for name, title in QUANTITIES.items()
                      if name != "milliseconds" or any(row[-1] is not None for row in networks)}
        known = [family for group in GROUPS.values() for family in group]
        extra = sorted({row[1] for row in networks} - set(known))  # families of yours
        groups = {**GROUPS, **({"Others": extra} if extra else {})}
        data = {"columns": COLUMNS, "networks": networks, "sources": sources, "groups": [*groups.items()], "quantities": [*quantities.items()],
                "clock": clock,
                "sizes": [name for name in SIZES if name in ("", *quantities)]}
        super().__init__(data, source=source, x=x, y=y, size=size, scale=scale,
                         families=[*known, *extra] if families is None else list(families), network=network)

    @property
    def summary(self) -> str:
        example = self.data["example"]
        return f"{example['y']} by {example['x']}, {example['source']}"  # no count: it would change with every new network

    @traitlets.validate("source", "x", "y", "size", "scale", "network")
    def _check(self, proposal):
        allowed = {
            "source": [entry["name"] for entry in self.data["sources"]],
            "x": [name for name, _ in self.data["quantities"]],
            "y": [name for name, _ in self.data["quantities"]],
            "size": self.data["sizes"],
            "scale": ["log", "linear"],
        }
        if proposal.trait.name == "network":
            names = {row[0] for row in self.data["networks"]}
            names |= {mark[1] for entry in self.data["sources"] for mark in entry["marks"]}
            if proposal.value and proposal.value not in names:
                raise WrongValue(f"network={proposal.value!r} is not on the map; list_models() names the networks")
            return proposal.value
        return check_choice(proposal.trait.name, proposal.value, allowed[proposal.trait.name])

    @traitlets.validate("families")
    def _check_families(self, proposal):
        known = [family for _, group in self.data["groups"] for family in group]
        for family in proposal.value:
            check_choice("families", family, known)
        return proposal.value


def _networks(times: dict[str, float]) -> list[list]:
    """All networks, in the order of `COLUMNS`; the time is None where none was measured."""
    return [[row["name"], row["family"], int(row["year"]), int(row["input"].rpartition("x")[2]), int(row["params"]),
             int(row["macs"]), int(row["activations"]), int(row["depth"]), int(row["receptive_field"]), times.get(row["name"])]
            for row in load_table("zoo")]


def _latency() -> tuple[dict[str, float], str]:
    """Milliseconds for one image by network, and on what they were measured; empty if they were not."""
    try:
        record = load_result("latency")
    except FileNotFoundError:
        return {}, ""
    hardware = record["hardware"]
    where = f"{hardware['name']}, {hardware['threads']} thread" if hardware["device"] == "cpu" else hardware["name"]
    times = {name: round(row["milliseconds"], 3) for name, row in record["networks"].items()}
    return times, f"Time: measured for this book, one image on {where}, {record['precision']}."


# What each source shows: marks [network, name on the map, top-1, top-5, lowest and highest top-1 or None, whose number].


def _quoted(quantities: Sequence[str]) -> dict[str, dict[str, tuple[float, str]]]:
    """network -> quantity ("top1", "top5", "cifar10") -> accuracy in percent and where it stands."""
    found = {}
    for path in sorted(book_file("published").glob("*.csv")):
        for row in load_table(f"published/{path.stem}"):
            quantity, _, kind = row["quantity"].rpartition("_")
            if quantity in quantities and kind in ("error", "accuracy"):
                value = float(row["value"])
                accuracy = round(100 - value, 2) if kind == "error" else value
                found.setdefault(row["name"], {}).setdefault(quantity, (accuracy, f"{row['source']} [{row['cite']}]"))
    return found


def _papers() -> tuple[list, str]:
    marks = []
    for name, values in _quoted(("top1", "top5")).items():
        sources = dict.fromkeys(source for _, source in values.values())
        accuracies = (values.get(quantity, (None,))[0] for quantity in ("top1", "top5"))
        marks.append([name, name, *accuracies, None, None, "; ".join(sources)])
    return marks, ("Published accuracy on ImageNet's validation set: each paper trained and tested in its own way, so a point or "
                   "two between families may come from that.")


def _torchvision() -> tuple[list, str]:
    marks = []
    for row in load_table("torchvision_weights"):
        version = row["weights"].rpartition("_")[2]
        label = row["name"] if version == "V1" else f"{row['name']} ({version})"
        marks.append([row["name"], label, float(row["top1_accuracy"]), float(row["top5_accuracy"]), None, None, row["source"]])
    return marks, ("Published accuracy on ImageNet's validation set of the weights that torchvision ships: one central crop "
                   "each. (V2) is the same network, trained by a later recipe.")


def _cifar10() -> tuple[list, str]:
    marks = [[name, name, values["cifar10"][0], None, None, None, values["cifar10"][1]]
             for name, values in _quoted(("cifar10",)).items()]
    return marks, "Published accuracy on CIFAR-10's test set: each paper trained in its own way."


def _measured() -> tuple[list, str]:
    """The benchmark's runs, which are named "<name>, seed <number>": mean, lowest and highest over seeds."""
    try:
        record = load_result("benchmark")
    except FileNotFoundError:
        return [], ""
    seeds = {}
    for name, run in record["runs"].items():
        label = re.sub(r", seed \d+$", "", name)
        seeds.setdefault((run["recipe"]["model"], label), []).append(run["rows"][-1]["test_accuracy"])
    marks = []
    for (model, label), values in seeds.items():
        spread = (round(min(values), 2), round(max(values), 2)) if len(values) > 1 else (None, None)
        count = f"mean of {len(values)} seeds" if len(values) > 1 else "one seed"
        marks.append([model, label, round(statistics.mean(values), 2), None, *spread,
                      f"measured for this book, {count}: data/results/benchmark.json"])
    return marks, f"Measured for this book on CIFAR-10's test set. {record['description']}. Bars reach from the lowest seed to the highest."
