"""The page "All networks in pictures", and a small and a large picture of every network as SVG files.

    python tools/gallery.py                         write chapters/gallery.md
    python tools/gallery.py --check                 write nothing; fail if it would change
    python tools/gallery.py --pictures FOLDER       write FOLDER/<name>.svg, and FOLDER/small/<name>.svg without words

The pictures are made whenever the book is built (`_ext/pictures.py`), and not kept in the repository: they follow from
the networks to the byte, take seconds, and would all change with a colour. The page shows them as images that load
when a reader gets there, so that it stays light; `small_picture_cell` gives the same for a table.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path

import torch

from cnnlib import create_model, list_models
from cnnlib.analysis.diagram import diagram
from cnnlib.analysis.drawing import SMALL, draw, small_picture
from cnnlib.registry import find_variant

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "chapters" / "gallery.md"
INTRODUCTION = """# All networks in pictures

Every network of `cnnlib`, drawn from the network itself, families by year. Height and depth of a solid show the rows
and columns of a feature map, its thickness the channels (not to scale: lengths grow with the 0.55th power of the size,
thickness with the 0.4th of the channels, so that 7×7 beside 224×224 can still be seen). Blocks that repeat stand
beside each other, at most four of them. Blue is convolution, yellow pooling, red a fully connected layer.

To draw one yourself, or any other network, at three zooms:

```python
from cnnlib import create_model, plots
from cnnlib.analysis import diagram

resnet = diagram(create_model("resnet50"), (3, 224, 224), title="ResNet-50")
plots.draw(resnet)                  # the whole
plots.draw(resnet, "stages.1")      # a stage
plots.draw(resnet, "stages.1.0")    # a block
```"""


def picture_of(name: str):
    with torch.device("meta"):
        network = create_model(name)
    return diagram(network, find_variant(name).input_size, title=name)


def write_pictures(folder: Path) -> None:
    (folder / "small").mkdir(parents=True, exist_ok=True)
    for name in list_models():
        drawn = picture_of(name)
        draw(drawn).save(folder / f"{name}.svg")
        (folder / "small" / f"{name}.svg").write_text(small_picture(drawn) + "\n", encoding="utf-8")


def small_picture_cell(name: str) -> str:
    """The small picture of a network for a table of a page in `chapters`; its room is kept until it is loaded."""
    return (f'<img src="../_static/pictures/small/{name}.svg" alt="feature maps of {name}" class="dark-light" '
            f'loading="lazy" width="{0.75 * SMALL[0]:g}" height="{0.75 * SMALL[1]:g}" style="max-width:none">')


def as_page() -> str:
    """The page: a family a section, in it one picture for each network; equal ones in a row stand together."""
    variants = sorted(map(find_variant, list_models()), key=lambda variant: (variant.family, variant.name))
    families = {family: list(group) for family, group in groupby(variants, key=lambda variant: variant.family)}
    sections = [INTRODUCTION]
    for family, group in sorted(families.items(), key=lambda item: (min(variant.year for variant in item[1]), item[0])):
        sections.append(f"## {family}")
        for variant in group:
            size = "×".join(map(str, variant.input_size[1:]))
            picture = f'<img src="../_static/pictures/{variant.name}.svg" class="dark-light" loading="lazy"'
            words = f'alt="{variant.name}: its feature maps from the image to the answer">'
            caption = f"<figcaption><code>{variant.name}</code> at {size}: {variant.summary}</figcaption>"
            picture = f'<div class="network-picture">{picture} {words}</div>'
            sections.append(f'<figure class="network">{picture}{caption}</figure>')
    return "\n\n".join(sections) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page would change")
    parser.add_argument("--pictures", type=Path, help="write the pictures into this folder, and no page")
    arguments = parser.parse_args()
    if arguments.pictures:
        write_pictures(arguments.pictures)
    elif arguments.check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != as_page():
            sys.exit(f"{PAGE.relative_to(ROOT)} is not up to date; run python tools/gallery.py")
    else:
        PAGE.write_text(as_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
