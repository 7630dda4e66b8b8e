"""The cost table of networks as an explorer: memory, parameters and operations, layer by layer or by stage."""

from collections.abc import Sequence

import traitlets
from torch import nn

from cnnlib.analysis import AnalysisError, cost_table, training_memory

from .base import Explorer, check_choice, check_input_size, module, named_model


class CostTableExplorer(Explorer):
    """Cost tables of one or more networks, at one or more input sizes: sort, filter, change units, compare, export.

        CostTableExplorer("alexnet_227")
        CostTableExplorer("alexnet_227", "alexnet", sizes=[(3, 227, 227), (3, 256, 256)])

    `models` are names or modules. `sizes` are (channels, height, width); by default each network's designed size, which a
    module without a name does not have. Traits: `table` and `compare` choose among `data["tables"]` by title
    (`compare` may be ""), `by` is "layer" or "stage", `memory` "values" or "bytes", `operations` "macs" or "flops", `sort`
    "" (forward order) or "activations", "saved", "params", "macs" (largest first with "-" before it), `filter` is text to
    find in a layer's name or kind, and `training` adds the column "saved": what autograd keeps of one image for the backward
    pass, counted in training mode (empty for networks whose path depends on values).

    Raises `ValueError` for an unknown network, a wrong size and a size that the network refuses.
    """

    _esm = module("cost_table")
    table = traitlets.Unicode().tag(sync=True)
    compare = traitlets.Unicode().tag(sync=True)
    by = traitlets.Unicode().tag(sync=True)
    memory = traitlets.Unicode().tag(sync=True)
    operations = traitlets.Unicode().tag(sync=True)
    sort = traitlets.Unicode().tag(sync=True)
    filter = traitlets.Unicode().tag(sync=True)
    training = traitlets.Bool().tag(sync=True)

    def __init__(self, *models: str | nn.Module, sizes: Sequence[Sequence[int]] | None = None):
        if not models:
            raise ValueError("models is empty; name at least one network")
        layers, tables = [], []
        for model in models:
            name, network, designed = named_model(model)
            if sizes is None and designed is None:
                raise ValueError(f"{name} has no designed input size; pass sizes=[(channels, height, width)]")
            for size in [designed] if sizes is None else sizes:
                entry, rows = _entry(name, network, check_input_size(size))
                if rows not in layers:  # most networks have the same layers at every input size
                    layers.append(rows)
                tables.append({**entry, "layers": layers.index(rows)})
        if not tables:
            raise ValueError("sizes is empty; pass at least one (channels, height, width)")
        titles = [entry["title"] for entry in tables]
        if len(set(titles)) < len(titles):
            raise ValueError(f"two tables have the same title: {', '.join(titles)}; pass each network and size once")
        super().__init__({"layers": layers, "tables": tables}, table=titles[0], compare="", by="layer",
                         memory="values", operations="macs", sort="", filter="",
                         training=False)

    @property
    def summary(self) -> str:
        return ", ".join(entry["title"] for entry in self.data["tables"])

    @traitlets.validate("table", "compare", "by", "memory", "operations", "sort")
    def _check(self, proposal):
        titles = [entry["title"] for entry in self.data["tables"]]
        allowed = {
            "table": titles,
            "compare": ["", *titles],
            "by": ["layer", "stage"],
            "memory": ["values", "bytes"],
            "operations": ["macs", "flops"],
            "sort": ["", *(sign + column for column in ("activations", "saved", "params", "macs") for sign in ("", "-"))],
        }
        return check_choice(proposal.trait.name, proposal.value, allowed[proposal.trait.name])


def _entry(name: str, network: nn.Module, size: tuple[int, int, int]) -> tuple[dict, list]:
    """One table as plain data: what depends on the input size, and the layers (name, kind, stage, params)."""
    table = cost_table(network, size)
    text = "x".join(map(str, size))
    entry = {
        "title": f"{name} at {text}",
        "file": f"{name}_{text}",
        "shapes": ["x".join(map(str, row.output_shape)) for row in table],
        "activations": [row.activations for row in table],
        "macs": [row.macs for row in table],
        "value_bytes": table.dtype.itemsize,
        "peak_bytes": table.peak_bytes,
        **_training(network, size, [row.name for row in table]),
    }
    return entry, [[row.name, row.kind, row.stage, row.params] for row in table]


def _training(network: nn.Module, size: tuple[int, int, int], names: list[str]) -> dict:
    """What a training step on one image keeps, in bytes: `saved` by row, and `kept` with the sums; or empty.

    What operations of one module save stands in its first row.
    """
    modes = {module: module.training for module in network.modules()}
    try:
        memory = training_memory(network.train(), size, optimizer="momentum")
    except AnalysisError:
        return {}
    finally:
        for module, mode in modes.items():
            module.training = mode
    left = {row.name: row.saved for row in memory}
    saved = [left.pop(name, 0) for name in names]
    if left:  # a module without a row of its own: what it saves belongs to the whole
        saved[0] += sum(left.values())
    return {"saved": saved, "kept": {name: getattr(memory, name) for name in ("weights", "gradients", "optimizer_state", "saved")}}
