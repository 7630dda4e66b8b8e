"""Small trainings whose outcome a page or the solution of an exercise tells: the page's own cells, once for each seed.

    python tools/experiments/exercises.py                  all; what is recorded already is not run again
    python tools/experiments/exercises.py --only 03        those of one chapter

A page seeds its trainings with 0. Here a cell is carried out with other seeds, and where an exercise changes the network, with that one
in its place (`Page.run`); the code is read from the chapter and written nowhere twice. A run records what the text speaks of, in percent
of right answers unless its name says otherwise. Writes `data/results/exercises.json`. (Those of 05, exercise 7, take minutes each.)
"""

import argparse
import ast
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from torch import nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import notebooks  # noqa: E402
from segmentation import measure  # noqa: E402
from cnnlib import create_model  # noqa: E402
from cnnlib.train.experiments import hardware, read_record, write_record  # noqa: E402

TARGET = ROOT / "data" / "results" / "exercises.json"
DESCRIPTION = "Trainings of seconds to minutes that a reader carries out: what they gave here, with several seeds"


class Replace(ast.NodeTransformer):
    """`seed` in place of a seed of 0, no asserts, and other values in place of what some names are given by `=` or `for`.

    A value is code, or a function that is called at that place."""

    def __init__(self, values: dict[str, str | Callable[[], object]]):
        self.values, self.used = values, set()

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if ast.unparse(node) == "torch.manual_seed(0)":
            node.args = [ast.Name("seed", ast.Load())]
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.Pass:
        return ast.Pass()

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        node.value = self.value(node.targets[0], node.value)
        return self.generic_visit(node)

    def visit_For(self, node: ast.For) -> ast.For:
        node.iter = self.value(node.target, node.iter)
        return self.generic_visit(node)

    def value(self, target: ast.expr, given: ast.expr) -> ast.expr:
        if (name := ast.unparse(target)) not in self.values:
            return given
        self.used.add(name)
        value = self.values[name]
        return ast.parse(value if isinstance(value, str) else f"replaced[{name!r}]()", mode="eval").body


class Page:
    """The code of a chapter, of cells and solutions, by what it defines, and the names that it has made so far."""

    def __init__(self, name: str, seed: int):
        self.name, self.names = name, {"seed": seed, "replaced": {}}
        cells = notebooks.read(ROOT / "chapters" / f"{name}.ipynb").cells
        self.cells = [cell.source for cell in cells if cell.cell_type == "code" and not notebooks.is_setup_cell(cell)]
        solutions = [cell.source for cell in cells if "<details><summary>Solution</summary>" in cell.source]
        self.cells += [code for text in solutions for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
        exec(self.cells[0], self.names)  # the imports

    def run(self, start: str, **values: str | Callable[[], object]) -> dict[str, object]:
        """Carry out the one cell that has a line beginning with `start`; `values` say what some of its names are given instead (`Replace`)."""
        found = [cell for cell in self.cells if any(line.startswith(start) for line in cell.splitlines())]
        if len(found) != 1:
            raise SystemExit(f"{self.name}: {len(found)} cells have a line that begins with {start!r}")
        replace = Replace(values)
        tree = ast.fix_missing_locations(replace.visit(ast.parse(found[0])))
        if missing := set(replace.values) - replace.used:
            raise SystemExit(f"{self.name}: the cell of {start!r} gives no value to {', '.join(missing)}")
        self.names["replaced"] = replace.values
        exec(compile(tree, self.name, "exec"), self.names)
        return self.names


def lenet(broken: bool, seed: int) -> dict:
    """01, exercise 6."""
    def model() -> nn.Module:
        whole = create_model("lenet5_relu", in_channels=3)
        if not broken:
            return whole
        return nn.Sequential(*(nn.AvgPool2d(2) if isinstance(part, nn.MaxPool2d) else part
                               for part in whole.modules() if not any(part.children()) and not isinstance(part, nn.ReLU)))

    return {"right": 100 * Page("01_components", seed).run("training_set, test_set = load", model=model)["right"]}


def vgg(name: str, seed: int, **options: object) -> dict:
    """05, exercise 7: the loop of 01 with VGG-16 and plain descent, three epochs."""
    page = Page("01_components", seed)
    page.names["network"] = lambda: create_model(name, num_classes=10, dropout=0.0, **options)
    names = page.run("training_set, test_set = load", model="network()", optimizer="torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)",
                     **{"batches.epoch": "range(3)"})
    return {"right": 100 * names["right"], "last loss": names["losses"][-1]}


def alexnet(seed: int, epochs: int = 40, **augmentation: object) -> dict:
    """03, the experiment of the page and exercise 6."""
    page = Page("03_alexnet", seed)
    page.run("training_set, test_set = load")
    names = page.run("def trained")
    net = names["trained"](names["Augmentation"](**augmentation) if augmentation else None, epochs)
    return {"old": 100 * names["accuracy"](net, names["few"]), "right": 100 * names["accuracy"](net, names["test_set"])}


def googlenet(change: Callable[[nn.Sequential], nn.Module], seed: int) -> dict:
    """06, the training of the page and exercise 6, whose images are also shifted by four pixels."""
    page = Page("06_googlenet", seed)
    page.run("def conv(")
    small = page.run("def small_googlenet")["small_googlenet"]
    names = page.run("training_set, test_set = load", model=lambda: change(small()))
    with torch.no_grad():
        moved = (names["model"](names["images"].roll(4, -1)).argmax(1) == names["labels"]).float().mean().item()
    return {"right": 100 * names["right"], "shifted": 100 * moved}


def flattened(small: nn.Sequential) -> nn.Module:
    return nn.Sequential(*small[:-3], nn.Flatten(), nn.Linear(112 * 8 * 8, 10))


def bare(small: nn.Sequential) -> nn.Module:
    return nn.Sequential(*(layer for layer in small if not isinstance(layer, nn.BatchNorm2d)))


def resnet(name: str, blocks: int, seed: int, norm: bool = True) -> dict:
    """07, the training of the page and exercise 6; without normalization on request."""
    page = Page("07_resnet", seed)
    page.run("training_set, test_set = load")
    names = page.run("def right", deep=lambda: {"plain20": 0.0, "resnet20": 0.0})  # the function alone

    def without(*arguments: object, **options: object) -> nn.Module:
        model = create_model(*arguments, **options)
        for layer in model.modules():
            if hasattr(layer, "conv"):
                layer.norm = nn.Identity()
        return model

    names["create_model"] = create_model if norm else without
    return {"right": 100 * names["right"](name, (blocks, blocks, blocks))}


def turns(name: str, seed: int) -> dict:
    """07 in depth, the loss along a line: three lines through each start."""
    page = Page("07_resnet_depth", seed)
    for start in ("def prepare", "def he", "def loss_along"):
        names = page.run(start)
    steps = torch.linspace(-0.05, 0.05, 41)
    changes = [names["loss_along"](name, steps, line).diff() for line in (1, 2, 3)]
    return {f"turns, line {line}": (change[1:] * change[:-1] < 0).sum().item() for line, change in enumerate(changes, start=1)}


def nothing(shortcut: bool, seed: int) -> dict:
    """07, the two tables of the page."""
    error = Page("07_resnet", seed).run("def error_of_doing_nothing")["error_of_doing_nothing"]
    return {f"error, {2 * blocks} convolutions": error(blocks, shortcut) for blocks in (1, 2, 4)}


def efficient(kind: str, width: int, seed: int) -> dict:
    """10, the training of the page, and exercise 6, which makes one of its networks wider."""
    page = Page("10_efficient_networks", seed)
    network = page.run("def layer(kind")["network"]
    names = page.run("training_set, test_set = load", found=lambda: {"mix": 0, "look": 0})  # one network is trained here, not all
    names["network"] = lambda kind: network(kind, width)
    return {"right": names["accuracy"](kind)}


def optimizers(name: str, adam: bool, seed: int, **options: object) -> dict:
    """12, exercise 6: the function `train` of 07, with its optimizer or with AdamW."""
    page = Page("07_resnet", seed)
    changes = {"optimizer": "torch.optim.AdamW(model.parameters(), lr)"} if adam else {}
    train = page.run("training_set, test_set = load", **changes)["train"]
    torch.manual_seed(seed)
    return {"right": 100 * train(create_model(name, num_classes=10, **options), **({"lr": 1e-3} if adam else {}))}


def unet(skips: bool, seed: int) -> dict:
    """16, exercise 6, on two hundred other scenes."""
    page = Page("16_dense_prediction", seed)
    page.run("images, masks = shape_scenes(200")
    names = page.run("def train(model, epochs=5")
    torch.manual_seed(seed)
    model = names["unet"](skips)
    names["train"](model)
    found = measure(model, names["images"], names["masks"])
    return {"right": found["pixels"], "right at edges": found["pixels_at_edges"]}


def unfair(seed: int) -> dict:
    """13, two networks at two step sizes."""
    page = Page("13_choosing", seed)
    page.run("def accuracy(width")
    found = page.run("center, spread = train_set")["found"]
    return {f"{name}, step size {lr}": 100 * right for lr, both in found.items() for name, right in zip(("narrow", "wide"), both)}


def runs() -> Iterator[tuple[str, Callable[[int], dict], int]]:
    """What is trained, how, and with how many seeds."""
    yield "01 LeNet-5", lambda seed: lenet(False, seed), 3
    yield "01 LeNet-5 without ReLUs, with averages", lambda seed: lenet(True, seed), 3
    yield "03 as they are", lambda seed: alexnet(seed), 5
    for crop in (0, 3, 12):
        yield f"03 mirrored and moved by {crop}", lambda seed, crop=crop: alexnet(seed, flip=True, crop=crop), 5
    yield "03 as they are, 120 epochs", lambda seed: alexnet(seed, 120), 3
    yield "03 mirrored and moved by 3, 120 epochs", lambda seed: alexnet(seed, 120, flip=True, crop=3), 3
    for label, name, options, seeds in (
        ("small weights", "vgg16_cifar", {"initialization": "paper"}, 1), ("He", "vgg16_cifar", {"initialization": "he"}, 1),
        ("batch norm", "vgg16_cifar_bn", {"initialization": "paper"}, 1),
        ("five convolutions", "vgg16_cifar", {"initialization": "paper", "depths": (1, 1, 1, 1, 1)}, 3),
    ):
        yield f"05 {label}", lambda seed, name=name, options=options: vgg(name, seed, **options), seeds
    yield "06 mean", lambda seed: googlenet(lambda small: small, seed), 5
    yield "06 flat", lambda seed: googlenet(flattened, seed), 3
    yield "06 mean, no normalization", lambda seed: googlenet(bare, seed), 5
    yield "07 nothing, plain", lambda seed: nothing(False, seed), 5
    yield "07 nothing, skip connections", lambda seed: nothing(True, seed), 5
    for blocks in (1, 4, 8):
        for name in ("plain20", "resnet20"):
            yield f"07 {name}, {3 * blocks} blocks", lambda seed, blocks=blocks, name=name: resnet(name, blocks, seed), 3
    for name in ("plain20", "resnet20"):
        yield f"07 {name}, 12 blocks, no normalization", lambda seed, name=name: resnet(name, 4, seed, norm=False), 3
    for name in ("plain56", "resnet56"):
        yield f"07 {name}, along a line", lambda seed, name=name: turns(name, seed), 2
    for kind in ("mix", "look", "both", "dense"):
        yield f"10 {kind}", lambda seed, kind=kind: efficient(kind, 32, seed), 4
    yield "10 both, 90 channels", lambda seed: efficient("both", 90, seed), 3
    for adam in (False, True):
        how = "AdamW" if adam else "SGD"
        yield f"12 convnext_cifar, {how}", lambda seed, adam=adam: optimizers("convnext_cifar", adam, seed, layer_scale=1e-6), 3
        yield f"12 resnet20, {how}", lambda seed, adam=adam: optimizers("resnet20", adam, seed, depths=(1, 1, 1)), 3
    yield "13 two step sizes", unfair, 5
    for skips in (True, False):
        yield f"16 {'with' if skips else 'without'} bridges", lambda seed, skips=skips: unet(skips, seed), 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NN", help="the number of a chapter")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    start = {"description": DESCRIPTION, "hardware": hardware(torch.device("cpu")), "runs": {}}
    for label, train, seeds in runs():
        for seed in range(seeds):
            name = f"{label}, seed {seed}"
            if label.startswith(only) and name not in read_record(TARGET, **start)["runs"]:
                began = time.process_time()
                found = train(seed)
                plt.close("all")  # the pages' own figures
                assert all(math.isfinite(value) for value in found.values()), (name, found)
                print(name, found, flush=True)
                record = read_record(TARGET, **start)
                entry = {"seed": seed, **found, "core_seconds": time.process_time() - began}
                write_record(TARGET, {**record, "runs": {**record["runs"], name: entry}})


if __name__ == "__main__":
    main()
