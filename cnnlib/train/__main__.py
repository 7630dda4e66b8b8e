"""Train a network by name, or carry out a file of experiments.

    python -m cnnlib.train resnet20 --recipe resnet_cifar --data cifar10 --checkpoint runs/resnet20.pt
    python -m cnnlib.train resnet18 --recipe photographs --data folder:my/photos --weights IMAGENET1K_V1 --checkpoint my.pt
    torchrun --nproc-per-node 8 -m cnnlib.train resnet50 --recipe resnet --data files:imagenet --precision auto
    python -m cnnlib.train data/experiments/alexnet.toml --runs "seed 0"

First steps: take a recipe by name, try it with --epochs 1 --train-images 1000, and look whether the loss falls. Then
tune lr by factors of 3. --set gives arguments of the network (--set dropout=0.0 --set widths=[32,64,128,256]), or any
field of the recipe.

Stop at any moment: with --checkpoint the same command goes on where it stopped, to the same result, and the best network
so far is kept beside it. To train longer, raise --epochs and add --change epochs; cosine, linear and step schedules then
stretch, the others do not. `python -m cnnlib.train.campaign` carries out all files of experiments.

Every batch is shared by the processes that torchrun or a scheduler starts. CNNLIB_WORKERS in the environment sets how
many workers each of them has for reading large sets; CNNLIB_CIFAR10 names a folder with CIFAR-10's images.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch

from cnnlib.train import distributed
from cnnlib.train.checkpoint import CHANGEABLE
from cnnlib.train.experiments import BUDGETS, run_experiment
from cnnlib.train.loop import fit
from cnnlib.train.progress import bar, tensorboard
from cnnlib.train.recipe import CHOICES, Recipe
from cnnlib.train.recipes import RECIPES, named
from cnnlib.train.run import arguments_of

FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
OF_A_PLAN = ("model", "runs", "work", "budget", "device")  # options that a file of experiments can honour


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cnnlib.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of list_models(), or a file of experiments (*.toml)")
    add = parser.add_argument_group("how it is carried out").add_argument
    add("--recipe", choices=RECIPES, help="start from a recipe by name; what follows changes it")
    add("--set", action="append", metavar="KEY=VALUE", help="an argument of the network, or a field of the recipe; the value "
        "as JSON, else as text; model_args.KEY where both have a KEY. May be given many times")
    add("--device", help="cpu, cuda, cuda:1, mps; the best there is if not given")
    add("--checkpoint", metavar="FILE", help="save here after every epoch and when stopped; go on from here if the file exists")
    add("--save-minutes", type=float, metavar="MINUTES", help="save within an epoch so often, too (default: 10)")
    add("--change", nargs="+", choices=CHANGEABLE, metavar="FIELD",
        help=f"let the run go on although these differ from the checkpoint: {', '.join(CHANGEABLE)}")
    add("--tensorboard", metavar="FOLDER", help="write curves there too")
    add = parser.add_argument_group("of a file of experiments").add_argument
    add("--runs", nargs="+", metavar="RUN", help="only these runs")
    add("--budget", choices=BUDGETS, help="the kind of machine whose fields are taken (default: cpu)")
    add("--work", metavar="FOLDER", help="where the checkpoints are (default: runs)")
    group = parser.add_argument_group("fields of the recipe")
    for field in FIELDS.values():
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
            kind = {"type": _json}
        else:
            kind = {"type": type(default), "choices": CHOICES.get(field.name)}
        text = f"{field.metadata['help']} (default: {shown if shown not in ('', {}) else 'none'})".replace("%", "%%")
        group.add_argument(option, default=argparse.SUPPRESS, help=text, **kind)
    return parser


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from error


def settings(texts: list[str], model: str, fields: dict[str, object]) -> dict[str, object]:
    """The fields of the recipe after `--set KEY=VALUE ...`. Raises `ValueError` for what neither recipe nor network has."""
    fields, arguments, own = dict(fields), dict(fields.get("model_args", {})), arguments_of(model)
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {text}: expected KEY=VALUE")
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            pass  # a text
        if key in FIELDS and key not in ("model", "model_args"):
            fields[key] = value
        elif key.startswith("model_args.") or key in own:
            arguments[key.removeprefix("model_args.")] = value
        else:
            raise ValueError(f"--set {text}: neither a recipe nor {model} has {key!r}; the network has "
                             f"{', '.join(own)}")
    return {**fields, **({"model_args": arguments} if arguments else {})}


def device_of(name: str | None) -> torch.device | None:
    """The device of that name. Raises `ValueError` if there is none."""
    if name is None:
        return None
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name}: there is no such device here ({str(error).splitlines()[0]})") from error


def carry_out_plan(options: dict[str, object]) -> None:
    if refused := [name for name, value in options.items() if value is not None and name not in OF_A_PLAN]:
        raise ValueError(f"{' '.join('--' + name.replace('_', '-') for name in refused)}: a file of experiments says this itself; "
                         f"beside it go {', '.join('--' + name for name in OF_A_PLAN[1:])}")
    given = {name: options[name] for name in OF_A_PLAN[1:] if options[name] is not None}
    given["device"] = device_of(options["device"])
    path = Path(options["model"])
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    with distributed.joined():
        first = distributed.rank() == 0
        target = run_experiment(path, log=lambda text: print(text, flush=True) if first else None, **given)
        if first:
            print("recorded in", target)


def train(options: dict[str, object]) -> None:
    if refused := [name for name in ("runs", "budget", "work") if options[name] is not None]:
        raise ValueError(f"{' '.join('--' + name for name in refused)}: belongs to a file of experiments, not to "
                         f"{options['model']!r}")
    for name in ("save_minutes", "change"):
        if options[name] is not None and options["checkpoint"] is None:
            raise ValueError(f"--{name.replace('_', '-')} needs --checkpoint")
    fields = {name: value for name, value in options.items() if name in FIELDS}
    known = RECIPES.get(options["recipe"], {})
    if options["set"] and known.get("model") == options["model"]:
        fields["model_args"] = {**known.get("model_args", {}), **fields.get("model_args", {})}
    fields = settings(options["set"] or [], options["model"], fields)
    recipe = named(options["recipe"], **fields) if options["recipe"] else Recipe.from_dict(fields)
    kept = {"checkpoint": options["checkpoint"], "save_minutes": options["save_minutes"] or 10.0, "allow": options["change"] or ()}
    with distributed.joined():
        first = distributed.rank() == 0
        rows = fit(recipe, device=device_of(options["device"]), progress=bar if first else None,
                   log=(lambda line: print(line, flush=True)) if first else None, **kept)
        for row in tensorboard(rows, options["tensorboard"]) if options["tensorboard"] and first else rows:
            if first:
                print("  ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)


def main(arguments: list[str] | None = None) -> None:
    options = vars(parser().parse_args(arguments))
    try:
        (carry_out_plan if options["model"].endswith(".toml") else train)(options)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        print("stopped" + (f"; the same command goes on from {options['checkpoint']}" if options["checkpoint"] else ""),
              file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
