"""Which features a trained DenseNet reuses, and what the columns of a trained FractalNet can do alone.

    python tools/experiments/dense_and_fractal.py [RUN ...]       # names as below; what is recorded already is skipped

"fractal, seed k" trains `fractalnet_cifar` with three blocks instead of five, which learns faster, cuts every column out and tests it: with the batch-norm statistics of the whole,
and with statistics gathered again by the column itself. "plain, seed k" trains the deepest column's network alone by the same
recipe. "no drop-path, seed k" is the FractalNet without drop-path. Writes `data/results/fractal_columns.json`.

"dense, seed k" takes `densenet_cifar` as `data/experiments/benchmark.toml` trains it, from that run's checkpoint if it is there. For every layer that reads a concatenation (`reader`) and every earlier layer whose
maps it reads (`source`) it takes the mean absolute weight, before and after training; the same times the scale of the
normalization in between; and how much the test loss rises if that one connection is cut. Writes `data/results/dense_reuse.json`.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib import create_model
from cnnlib.models.densenet import DenseNet
from cnnlib.models.fractalnet import PlainColumn
from cnnlib.train import Recipe, best_device, fit
from cnnlib.train.experiments import accuracy, read_experiment, read_record, run_record, write_record
from cnnlib.train.loop import Data, load_data, make_batches, memory_format, predict
from cnnlib.train.recipes import named

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "data" / "results"
FRACTAL, DENSE = RESULTS / "fractal_columns.json", RESULTS / "dense_reuse.json"
DESCRIPTIONS = {
    FRACTAL: "Columns cut out of a trained FractalNet, beside the deepest column's network trained alone",
    DENSE: "Which earlier maps the layers of a trained DenseNet weigh, and what cutting each connection costs",
}
COMMON = dict(data="cifar10", train_images=10_000, epochs=2, batch_size=32, lr=2e-3, warmup_epochs=0.2,
              label_smoothing=0.0, average=0.0, cutout=0)
THREE_BLOCKS = {"widths": (16, 32, 64), "dropout": (0.0, 0.0, 0.0)}
WITHOUT_DROP_PATH = {"local_drop_path": 0.0, "global_drop_path": 0.0}
TEST_IMAGES = 5_000
STATISTICS_IMAGES = 2_000  # from which a column gathers batch-norm statistics of its own
CUT_IMAGES = 300  # on which connections are cut


def recipes() -> dict[str, Recipe]:
    """The recipe of every run by its name, in the order in which they are done."""
    kinds = {
        "fractal": ("fractalnet_cifar", THREE_BLOCKS), "plain": ("fractalnet_cifar_plain", THREE_BLOCKS),
        "no drop-path": ("fractalnet_cifar", {**THREE_BLOCKS, **WITHOUT_DROP_PATH}),
    }
    order = [("fractal", 0), ("plain", 0), ("no drop-path", 0),
             ("fractal", 1), ("plain", 1), ("fractal", 2), ("plain", 2)]
    _, benchmark, _ = read_experiment(ROOT / "data/experiments/benchmark.toml")
    plans = {f"{kind}, seed {seed}": named("modern", model=kinds[kind][0], model_args=kinds[kind][1], seed=seed,
                                                  precision="bfloat16", **COMMON)
             for kind, seed in order}
    return {"dense, seed 0": benchmark["densenet_cifar, seed 0"], **plans}


class Tester:
    """Logits and figures on one set of test images, normalized as the recipe's training images are."""

    def __init__(self, recipe: Recipe, data: Data, device: torch.device):
        self.recipe, self.device = recipe, device
        _, self.test, self.plain = make_batches(recipe, data, device)

    def figures(self, model: nn.Module) -> dict[str, float]:
        model.to(self.device, memory_format=memory_format(self.recipe))
        logits, labels = predict(model, self.test, self.recipe.precision)
        return {"loss": nn.functional.cross_entropy(logits, labels).item(), "accuracy": accuracy(logits, labels, 1)}

    @torch.no_grad()
    def gather_statistics(self, column: PlainColumn) -> PlainColumn:
        """The column with the batch-norm statistics of `STATISTICS_IMAGES` training images: equal means over batches."""
        for norm in (module for module in column.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum = None
        column.to(self.device, memory_format=memory_format(self.recipe)).train()
        seen = 0
        for images, _ in self.plain:
            if seen >= STATISTICS_IMAGES:
                break
            column(images.contiguous(memory_format=memory_format(self.recipe)))
            seen += len(images)
        return column.eval()


def columns_of(model: nn.Module, tester: Tester) -> dict[str, list]:
    """Each column of a FractalNet alone, from the shallowest."""
    numbers = range(1, model.columns + 1)
    return {
        "depths": [len(model.stages) * 2 ** (k - 1) for k in numbers],
        "columns": [tester.figures(model.column(k).eval()) for k in numbers],
        "columns, own statistics": [tester.figures(tester.gather_statistics(model.column(k))) for k in numbers],
    }


@dataclass
class Reader:
    """A layer that reads the maps of a block: the first weights (out, in, ...) that they meet, and their normalization."""

    name: str
    norm: nn.BatchNorm2d
    layer: nn.Conv2d | nn.Linear
    sources: list[int]  # channels of the block's input, then of each dense layer read

    def mean_weights(self, *, scaled: bool) -> list[float]:
        """For each source the mean absolute weight of its channels, times the scale of their normalization if `scaled`."""
        weight = self.layer.weight.detach().abs().transpose(0, 1).flatten(1).mean(1)
        if scaled:
            weight = weight * self.norm.weight.detach().abs()
        return [part.mean().item() for part in weight.split(self.sources)]


def readers(model: DenseNet) -> Iterator[tuple[int, Reader]]:
    """Every layer that reads a concatenation, with the number of its block: dense layers, transitions, classifier."""
    stages = list(model.stages)
    for number, stage in enumerate(stages):
        block = stage[-1]
        growth = block[0].grow.conv.out_channels
        width = block.out_channels - len(block) * growth
        for index, layer in enumerate(block):
            yield number, Reader(f"layer {index + 1}", layer.reduce.norm, layer.reduce.conv, [width] + index * [growth])
        sources = [width] + len(block) * [growth]
        if stage is stages[-1]:
            yield number, Reader("classifier", model.head[0], model.head[-1], sources)
        else:
            transition = stages[number + 1][0].reduce
            yield number, Reader("transition", transition.norm, transition.conv, sources)


def maps_of_weights(model: DenseNet, *, scaled: bool) -> list[dict[str, list[float]]]:
    """For each block: reader -> one value for each of its sources."""
    maps = [{} for _ in model.stages]
    for number, reader in readers(model):
        maps[number][reader.name] = reader.mean_weights(scaled=scaled)
    return maps


@torch.no_grad()
def losses_when_cut(model: DenseNet, tester: Tester) -> tuple[float, list[dict[str, list[float]]]]:
    """The test loss, and for each block, reader and source how much it rises without that one connection."""
    before, maps = tester.figures(model)["loss"], [{} for _ in model.stages]
    for number, reader in readers(model):
        rises, first = [], 0
        for channels in reader.sources:
            part = reader.layer.weight[:, first : first + channels]
            kept = part.clone()
            part.zero_()
            rises.append(tester.figures(model)["loss"] - before)
            part.copy_(kept)
            first += channels
        maps[number][reader.name] = rises
    return before, maps


def reuse_of(initial: DenseNet, model: DenseNet, tester: Tester, data: Data) -> dict[str, object]:
    loss, rises = losses_when_cut(model, Tester(tester.recipe, (data[0], data[1].first(CUT_IMAGES)), tester.device))
    # The scale of a normalization multiplies what a weight meets, so it is part of how much a source counts.
    return {
        "initial": maps_of_weights(initial, scaled=False),
        "trained": maps_of_weights(model, scaled=False),
        "trained, scaled": maps_of_weights(model, scaled=True),
        "cut": {"images": min(CUT_IMAGES, len(data[1])), "loss": loss, "rises": rises},
    }


def carry_out(name: str, recipe: Recipe, data: Data, device: torch.device) -> dict[str, object]:
    """Train, test, and look inside."""
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, **recipe.model_args)
    initial = create_model(recipe.model, **recipe.model_args)
    initial.load_state_dict(model.state_dict())
    name_there = f"{recipe.model}, seed {recipe.seed}.pt"
    checkpoint = ROOT / "runs/benchmark" / name_there if recipe.model == "densenet_cifar" else None
    rows = list(fit(recipe, model=model, data=data, device=device, checkpoint=checkpoint))
    tester = Tester(recipe, data, device)
    result = run_record(recipe, data, device, params=sum(p.numel() for p in model.parameters()), rows=rows)
    if recipe.model == "fractalnet_cifar":
        return {**result, "statistics_images": STATISTICS_IMAGES, **columns_of(model, tester)}
    if recipe.model == "densenet_cifar":
        return {**result, **reuse_of(initial, model.eval(), tester, data)}
    return result


def begun(target: Path) -> dict:
    return {**read_record(target, runs={}), "description": DESCRIPTIONS[target]}


def main(names: Sequence[str]) -> None:
    device, plans = best_device(), recipes()
    if unknown := [name for name in names if name not in plans]:
        raise SystemExit(f"no run {', '.join(map(repr, unknown))}; the runs are {', '.join(map(repr, plans))}")
    train_set, test_set = load_data(Recipe(**COMMON))
    for name in names or plans:
        target = DENSE if name.startswith("dense") else FRACTAL
        data = train_set, test_set if target is DENSE else test_set.first(TEST_IMAGES)
        if name in begun(target)["runs"]:
            continue
        result = carry_out(name, plans[name], data, device)
        record = begun(target)  # another process may have added to it meanwhile
        record["runs"][name] = result
        write_record(target, record)
        print(name, {key: round(value, 3) for key, value in result["rows"][-1].items()}, flush=True)
        for columns in ("columns", "columns, own statistics"):
            print(f"    {columns}:", [round(column["accuracy"], 2) for column in result.get(columns, [])], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
