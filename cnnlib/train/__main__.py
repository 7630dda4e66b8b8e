"""`python -m cnnlib.train`: train a network by name, or carry out a file of experiments."""

import argparse
import dataclasses
import json
from pathlib import Path

from cnnlib.train.experiments import run_experiment
from cnnlib.train.loop import fit
from cnnlib.train.recipe import CHOICES, Recipe

HELP = {
    "model_args": "keyword arguments of the network as JSON, such as '{\"dropout\": 0.0}'",
    "data": "cifar10, shapes (made on the spot) or folder:PATH",
    "train_images": "use only so many training images; 0 means all",
    "milestones": "for --schedule step: fractions of the run after which the step size is divided by 10",
    "patience": "for --schedule plateau: epochs without progress before the step size is divided by 10",
    "warmup_epochs": "raise the step size linearly over so many epochs",
    "clip": "largest norm of the gradient; 0 means any",
    "crop": "augmentation: pad by so many pixels, crop at random",
    "cutout": "augmentation: blank a square of so many pixels",
    "aux_weight": "weight of the losses of auxiliary classifiers",
    "precision": "bfloat16 is faster wherever the hardware has instructions for it",
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cnnlib.train", description=__doc__)
    parser.add_argument("model", help="a name of cnnlib.list_models(), or a file of experiments (*.toml)")
    parser.add_argument("--checkpoint", help="save here after every epoch; go on from here if the file exists")
    for field in dataclasses.fields(Recipe):
        if field.name == "model":
            continue
        option = "--" + field.name.replace("_", "-")
        default = {} if field.name == "model_args" else field.default
        text = f"{HELP.get(field.name, '')} (default: {default})".strip()
        if isinstance(default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default, help=text)
        elif isinstance(default, tuple):
            parser.add_argument(option, type=float, nargs="+", default=default, help=text)
        elif isinstance(default, dict):
            parser.add_argument(option, type=json.loads, default=default, help=text)
        else:
            parser.add_argument(option, type=type(default), default=default, choices=CHOICES.get(field.name), help=text)
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = vars(parser().parse_args(arguments))
    checkpoint = options.pop("checkpoint")
    try:
        if options["model"].endswith(".toml"):
            print("recorded in", run_experiment(Path(options["model"]), log=lambda text: print(text, flush=True)))
            return
        for row in fit(Recipe(**options), checkpoint=checkpoint, progress=bar):
            print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


def bar(batches, row):
    """A progress bar with running loss, accuracy, images per second and time left; on a terminal only."""
    from tqdm import tqdm

    total = len(batches) * batches.batch_size
    with tqdm(total=total, unit="image", leave=False, desc=f"epoch {batches.epoch + 1}", disable=None) as line:
        for batch in batches:
            yield batch
            line.update(len(batch[1]))
            line.set_postfix({name: f"{value:.4g}" for name, value in row.items()})


if __name__ == "__main__":
    main()
