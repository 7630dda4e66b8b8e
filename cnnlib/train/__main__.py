"""Train a network by name, or carry out a file of experiments.

    python -m cnnlib.train resnet20 --recipe resnet_cifar --data cifar10 --checkpoint runs/resnet20.pt
    torchrun --nproc-per-node 8 -m cnnlib.train resnet50 --recipe resnet --data files:imagenet --precision bfloat16
    python -m cnnlib.train data/experiments/alexnet.toml

Every option below is a field of `cnnlib.train.Recipe`. Stop at any moment: with --checkpoint the same command goes on
where it stopped, to the same result, and the best network so far is kept beside it. Every batch is shared by the
processes that torchrun starts. CNNLIB_WORKERS in the environment sets how many workers each of them has for reading
large sets; CNNLIB_CIFAR10 names a folder with CIFAR-10's images.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from cnnlib.train import distributed
from cnnlib.train.experiments import run_experiment
from cnnlib.train.loop import fit
from cnnlib.train.progress import bar, tensorboard
from cnnlib.train.recipe import CHOICES, Recipe
from cnnlib.train.recipes import RECIPES, named


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cnnlib.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of list_models(), or a file of experiments (*.toml)")
    parser.add_argument("--recipe", choices=RECIPES, help="start from a recipe by name; what follows changes it")
    parser.add_argument("--checkpoint", help="save here after every epoch; go on from here if the file exists")
    parser.add_argument("--runs", nargs="+", default=(), metavar="RUN", help="of a file of experiments, only these runs")
    parser.add_argument("--tensorboard", metavar="FOLDER", help="write curves there too")
    for field in dataclasses.fields(Recipe):
        if field.name == "model":
            continue
        default = {} if field.name == "model_args" else field.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        option, kind = "--" + field.name.replace("_", "-"), {}
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"type": int if "int" in str(field.type) else float, "nargs": "+"}
        elif isinstance(default, dict):
            kind = {"type": json.loads}
        else:
            kind = {"type": type(default), "choices": CHOICES.get(field.name)}
        text = f"{field.metadata['help']} (default: {shown if shown != '' else 'none'})".replace("%", "%%")
        parser.add_argument(option, default=argparse.SUPPRESS, help=text, **kind)
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = vars(parser().parse_args(arguments))
    recipe, checkpoint, folder, runs = (options.pop(name) for name in ("recipe", "checkpoint", "tensorboard", "runs"))
    try:
        if options["model"].endswith(".toml"):
            path = Path(options["model"])
            print("recorded in", run_experiment(path, runs=runs, log=lambda text: print(text, flush=True)))
            return
        if runs:
            raise ValueError(f"--runs {' '.join(runs)}: runs belong to a file of experiments, not to {options['model']!r}")
        with distributed.joined():
            first = distributed.rank() == 0
            rows = fit(named(recipe, **options) if recipe else Recipe(**options), checkpoint=checkpoint,
                       progress=bar if first else None)
            for row in tensorboard(rows, folder) if folder and first else rows:
                if first:
                    print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
