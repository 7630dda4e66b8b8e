"""The table of all networks: data/zoo.csv and the page chapters/zoo.md that shows it.

    python tools/zoo_table.py                       write both
    python tools/zoo_table.py --family alexnet      the same; rows of other families stay as they are
    python tools/zoo_table.py --check               write nothing; fail if either would change
    python tools/zoo_table.py --check alexnet vgg16     the same for the rows of these networks alone
"""

import argparse
import csv
import io
import re
import sys
from itertools import groupby
from pathlib import Path

import torch

from cnnlib import create_model, list_models
from cnnlib.analysis.cost import CostTable
from cnnlib.analysis.depth import depth_of
from cnnlib.analysis.fields import Fields
from cnnlib.analysis.trace import trace
from cnnlib.registry import find_variant
from gallery import small_picture_cell

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "data" / "zoo.csv"
PAGE = ROOT / "chapters" / "zoo.md"
COLUMNS = ("name", "family", "year", "input", "params", "modules", "macs", "activations", "depth", "receptive_field", "cite",
           "twin", "summary")


def make_row(name: str) -> dict[str, str]:
    """What the table says of one network. Work is counted for one image of the size in `input`, in evaluation."""
    variant = find_variant(name)
    with torch.device("meta"):
        model = create_model(name).eval()
    record = trace(model, variant.input_size)  # one for all that the row says
    total = CostTable(record).total
    fields = Fields(record, 0)
    last = [layer for layer in fields if layer.split(".")[0] == "stages"][-1]  # the module that ends last
    height, width = fields["stages" if "stages" in fields else last].size
    if height != width:
        raise ValueError(f"the receptive field of {name} is not square: {height}x{width}")
    return {
        "name": name,
        "family": variant.family,
        "year": str(variant.year),
        "input": "x".join(map(str, variant.input_size)),
        "params": str(total.params),
        "modules": str(sum(1 for _ in model.modules())),
        "macs": str(total.macs),
        "activations": str(total.activations),
        "depth": str(depth_of(record)),
        "receptive_field": str(height),
        "cite": variant.cite,
        "twin": variant.twin or "",
        "summary": variant.summary,
    }


def as_csv(rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read_csv() -> list[dict[str, str]]:
    return list(csv.DictReader(TABLE.open(encoding="utf-8", newline="")))


def as_page(rows: list[dict[str, str]]) -> str:
    """The page: one table for each family, families by year."""
    papers = read_papers()
    sections = [INTRODUCTION]
    families = {family: list(group) for family, group in groupby(rows, key=lambda row: row["family"])}
    for family, group in sorted(families.items(), key=lambda item: (min(row["year"] for row in item[1]), item[0])):
        lines = [
            f"## {family}", "",
            "| network | parameters | multiply-adds | depth | field | input | paper | same network in |",
            "|:--|--:|--:|--:|--:|:--|:--|:--|",
        ]
        for row in group:
            lines.append("| " + " | ".join((
                f"`{row['name']}`<br>{small_picture_cell(row['name'])}", shortened(int(row["params"])), shortened(int(row["macs"])), row["depth"],
                row["receptive_field"], row["input"].removeprefix("3x"), papers[row["cite"]],
                f"`{row['twin']}`" if row["twin"] else "",
            )) + " |")
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


INTRODUCTION = """# All networks

Every network of `cnnlib`, by family and year. The numbers are computed from the networks themselves by
`tools/zoo_table.py`, for one image of the size given; with every digit they stand in `data/zoo.csv`.

- **Multiply-adds** are those of convolutions and matrix products, without biases; a count of operations is twice as much.
- **Depth** counts the convolutions and fully connected layers on the longest path from the image to the logits, without
  the gates of squeeze and excitation, as most papers do. Two families are named otherwise: wide residual networks for small
  images count three projections beside the path, and they and the FractalNets leave out the last, fully connected layer.
- **Field** is the receptive field, in pixels, of a unit in the last feature map; it may exceed the image. Squeeze and
  excitation sees the whole image; the field given is the one without it.
- The small picture shows the feature maps from the image to the answer, which [all networks in pictures](gallery.md) has
  large: blue is convolution, yellow pooling, red a fully connected layer.
- Networks without an entry in the last column have a published parameter count or cost to compare with
  (`data/published`), or are small-image forms made for this book."""


def shortened(number: int) -> str:
    """Three digits: 61100840 -> '61.1M'."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= 0.9995 * size:
            value = float(f"{number / size:.3g}")
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}{unit}"
    return str(number)


def read_papers() -> dict[str, str]:
    """bib key -> 'He et al. 2015', linked where the entry has a DOI or an arXiv number."""
    papers = {}
    for entry in re.split(r"^@", (ROOT / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        key = re.match(r"\w+\{([^,]+),", entry)[1]
        fields = {name.lower(): re.sub(r"[{}]", "", value).strip(' "')
                  for name, value in re.findall(r"^\s*(\w+)\s*=\s*(\{.*?\}|\".*?\"|\d+),?\s*$", entry, re.M | re.S)}
        authors = re.split(r"\s+and\s+", fields.get("author", key))
        surnames = [author.split(",")[0].replace("\\'a", "á") for author in authors]
        who = {1: surnames[0], 2: " and ".join(surnames)}.get(len(surnames), f"{surnames[0]} et al.")
        text = f"{who} {fields.get('year', '')}".strip()
        if "eprint" in fields:
            text = f"[{text}](https://arxiv.org/abs/{fields['eprint']})"
        elif "doi" in fields:
            text = f"[{text}](https://doi.org/{fields['doi']})"
        papers[key] = text
    return papers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    parser.add_argument("--family", choices=sorted({find_variant(name).family for name in list_models()}), metavar="FAMILY",
                        help="compute the rows of this family alone")
    parser.add_argument("names", nargs="*", help="with --check: these networks alone")
    arguments = parser.parse_args()
    if arguments.names and not arguments.check:
        parser.error("names are for --check; the table is always written as a whole")
    if arguments.names:
        known = {row["name"]: row for row in read_csv()}
        wrong = [name for name in arguments.names if known.get(name) != make_row(name)]
        sys.exit(f"rows that would change: {', '.join(wrong)}" if wrong else 0)
    kept = {row["name"]: row for row in read_csv() if row["family"] != arguments.family} if arguments.family else {}
    rows = [kept.get(name) or make_row(name) for name in sorted(list_models(), key=lambda name: (find_variant(name).family, name))]
    for path, text in ((TABLE, as_csv(rows)), (PAGE, as_page(rows))):
        if arguments.check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(f"{path.relative_to(ROOT)} is not up to date; run python tools/zoo_table.py")
        if not arguments.check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
