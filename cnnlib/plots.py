"""Figures of the book: each function draws on one Axes, computes nothing, and returns the Axes.

A colour means the same thing in every chapter: `COLOURS` for memory, parameters and operations.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from cnnlib.analysis.drawing import draw as draw  # networks, as SVG: `plots.draw(diagram(model, size))`

COLOURS = {"activations": "#0072B2", "params": "#D55E00", "macs": "#009E73"}
QUANTITIES = {"activations": "activations", "params": "parameters", "macs": "multiply-adds"}
HATCHES = {"activations": "", "params": "///", "macs": "..."}
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def layer_costs(table, quantity: str = "macs", *, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """One bar for each row of a cost table: its share of the total of `quantity`, in percent.

    `quantity` is `"activations"`, `"params"` or `"macs"`; `names` relabels the rows.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity={quantity!r}; choose one of {', '.join(map(repr, QUANTITIES))}")
    ax = ax or plt.gca()
    rows = list(table)
    values = np.array([getattr(row, quantity) for row in rows], dtype=float)
    shares = 100 * values / values.sum()
    places = np.arange(len(rows))
    ax.barh(places, shares, color=COLOURS[quantity], hatch=HATCHES[quantity], edgecolor="white", height=0.75)
    for place, share in zip(places, shares):
        if share >= 0.05:
            ax.annotate(f"{share:.1f}%", (share, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(places, names or [row.name for row in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.22 * shares.max())
    ax.set_xlabel(f"share of all {QUANTITIES[quantity]} (%)")
    ax.grid(axis="y", visible=False)
    return ax


def curves(runs: Mapping[str, Sequence[Mapping[str, float]]], quantity: str = "test_accuracy", *, ax: Axes | None = None) -> Axes:
    """One line for each run: `quantity` after each epoch; a run is its rows as `fit` yields them.

    Names of losses and accuracies become axis labels with units; lines differ by dash as well as by colour.
    """
    ax = ax or plt.gca()
    for (label, rows), dash in zip(runs.items(), DASHES * len(runs)):
        ax.plot([row["epoch"] for row in rows], [row[quantity] for row in rows], linestyle=dash, marker="o", label=label)
    ax.set_xlabel("epoch")
    part, _, kind = quantity.partition("_")
    units = {"accuracy": " (%)", "loss": " (nats)"}
    ax.set_ylabel({"train": "training", "test": "test"}.get(part, part) + f" {kind}" + units.get(kind, ""))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


def pictures(images, labels: Sequence[str] | None = None, *, columns: int = 8, ax: Axes | None = None) -> Axes:
    """A grid of images (N, C, H, W), bytes or values from 0 to 1, each with a label above it if there are labels."""
    ax = ax or plt.gca()
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = (255 * images.clip(0, 1)).astype(np.uint8)
    count, channels, height, width = images.shape
    gap_x, gap_y = max(2, width // 12), max(2, height // 12 if labels is None else height // 3)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap_y), columns * (width + gap_x) - gap_x, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        y, x = (number // columns) * (height + gap_y) + gap_y, (number % columns) * (width + gap_x)
        sheet[y : y + height, x : x + width] = np.broadcast_to(image.transpose(1, 2, 0), (height, width, 3))
        if labels is not None:
            ax.text(x + width / 2, y - gap_y / 6, labels[number], ha="center", va="bottom", fontsize=8)
    ax.imshow(sheet)
    ax.axis("off")
    return ax


def filters(weight, *, columns: int = 16, ax: Axes | None = None) -> Axes:
    """The filters (N, 3, H, W) of a first layer as colour pictures, each stretched to its own range."""
    weight = np.asarray(weight)
    low, high = weight.min((1, 2, 3), keepdims=True), weight.max((1, 2, 3), keepdims=True)
    return pictures((weight - low) / (high - low), columns=columns, ax=ax)


def receptive_fields(fields: Mapping[str, object], names: Mapping[str, str], image, *, ax: Axes | None = None) -> Axes:
    """The fields of the units nearest the image's centre, drawn to scale over an image (H, W, 3).

    `fields` is what `cnnlib.analysis.receptive_field` returns; `names` maps the modules to draw to their labels.
    Fields may reach beyond the image: what they see there is padding.
    """
    ax = ax or plt.gca()
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0))
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for (name, label), colour, dash in zip(names.items(), colours * 3, DASHES * 3):
        field = fields[name]
        corner, size = [], []
        for axis, length in enumerate((height, width)):
            stride, start, extent = field.stride[axis], field.start[axis], field.size[axis]
            unit = max(0, round(((length - extent) / 2 - start) / stride)) if stride else 0
            corner.append(start + unit * stride)
            size.append(extent)
        ax.add_patch(Rectangle((corner[1], corner[0]), size[1], size[0], fill=False, edgecolor=colour,
                               linewidth=2, linestyle=dash, label=f"{label}: {size[0]}x{size[1]}"))
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.set_xlabel("column (pixels)")
    ax.set_ylabel("row (pixels)")
    ax.grid(visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return ax


def roofline(device, groups: Mapping[str, Sequence], *, ax: Axes | None = None) -> Axes:
    """Layers under the roof of a `cnnlib.analysis.Device`: the FLOP/s that each can reach against its arithmetic intensity.

    `groups` maps labels to rows of a cost table. Rows without multiply-adds have no place in the picture and are left out.
    """
    ax = ax or plt.gca()
    ratio = device.flops_per_second / device.bytes_per_second
    intensities = [row.intensity for rows in groups.values() for row in rows if row.macs]
    ends = np.array([min([*intensities, ratio]) / 2, ratio, 2 * max([*intensities, ratio])])
    ax.plot(ends, np.minimum(ends * device.bytes_per_second, device.flops_per_second) / 1e12, color="#666666", zorder=0)
    for (label, rows), marker in zip(groups.items(), "os^Dvp" * len(groups)):
        rows = [row for row in rows if row.macs]
        speeds = [row.flops / row.seconds(device) / 1e12 for row in rows]
        ax.scatter([row.intensity for row in rows], speeds, marker=marker, label=label)
    ax.loglog()
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("arithmetic intensity (FLOPs per byte)")
    ax.set_ylabel("reachable at most (TFLOP/s)")
    ax.legend()
    return ax


def connections(values: Mapping[str, Sequence[float]], *, limits: tuple[float, float] | None = None, ax: Axes | None = None) -> Axes:
    """A dense block as a heat map: a column for each layer that reads, a row for each layer that is read.

    `values` has for every reader one value for each of its sources: the block's input, then its layers in order. What a
    layer cannot read stays white. `limits` are the values at the ends of the colour scale; `ax.images[0]` is for a colour bar.
    """
    ax = ax or plt.gca()
    sources = max(map(len, values.values()))
    grid = np.full((sources, len(values)), np.nan)
    for column, parts in enumerate(values.values()):
        grid[: len(parts), column] = parts
    low, high = limits or (None, None)
    ax.imshow(grid, cmap="viridis", vmin=low, vmax=high, aspect="equal")
    ax.set_xticks(range(len(values)), list(values), rotation=90)
    ax.set_yticks(range(sources), ["input", *(f"layer {number}" for number in range(1, sources))])
    ax.set_xlabel("reads")
    ax.set_ylabel("is read")
    ax.grid(visible=False)
    return ax
