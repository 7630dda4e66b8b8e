"""From photographs to names: a checkpoint as a classifier, and as a file for other programs.

    python -m cnnlib.classify run.pt holiday.jpg garden.png --top 3
    python -m cnnlib.classify run.pt --export run.onnx

    [answers] = classify("run.pt", ["holiday.jpg"])          # [("golf ball", 0.93), ("church", 0.02), ...]
    export("run.pt", "run.onnx")                             # ONNX, with names and normalization in its metadata
    export("run.pt", "run.pt2")                              # torch.export

A photograph is brought to the network as the test images of its training were. Checkpoints of `cnnlib.train` know
their classes; for older ones, and for weights of other origin, pass `classes`, `image_size`, `mean` and `std`.
"""

import argparse
import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.data import ImageFiles, centre
from cnnlib.photographs import read_photograph
from cnnlib.registry import create_model
from cnnlib.shipping import exporting
from cnnlib.train.checkpoint import load_checkpoint, tested_weights

BATCH = 32
# what a checkpoint holds under "classifier", beside the library's version
KNOWN = ("classes", "image_size", "mean", "std")


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with all that it takes to name a photograph.

    `mean` and `std` are those of training, of pixels in [0, 1]; `change` brings a PIL image to bytes (3, image_size,
    image_size), the largest central square of it if not given.
    """

    model: nn.Module
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    change: Callable[[object], Tensor] | None = None
    library: str = ""

    def prepared(self, file: str | os.PathLike) -> Tensor:
        """The photograph as normalized pixels (3, image_size, image_size); `ValueError` names an unreadable file."""
        image = read_photograph(file, at_least=2 * self.image_size)
        change = self.change or ImageFiles.square(self.image_size)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (change(image) / 255 - mean) / std

    @torch.no_grad()
    def probabilities(self, files: Sequence[str | os.PathLike]) -> Tensor:
        """Probabilities (files, classes), on the CPU."""
        device = next(self.model.parameters()).device
        parts = [files[k:k + BATCH] for k in range(0, len(files), BATCH)]
        logits = [self.model(torch.stack([self.prepared(file) for file in part]).to(device)).float().cpu()
                  for part in parts]
        return torch.cat([torch.empty(0, len(self.classes)), *logits]).softmax(1)


def load_classifier(
    checkpoint: str | os.PathLike, *, model: nn.Module | None = None, classes: Sequence[str] | None = None,
    image_size: int | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """The classifier that a checkpoint of `cnnlib.train` holds; the other arguments replace what it says of itself.

    `model` is for a run that was given a network of its own. Raises `FileNotFoundError` if there is no file,
    `ValueError` for one that is damaged, that does not say what its classes are, or whose weights do not fit the
    network.
    """
    state = load_checkpoint(checkpoint)
    given = {"classes": classes, "image_size": image_size, "mean": mean, "std": std}
    known = {**(state.get("classifier") or {}), **{name: value for name, value in given.items() if value is not None}}
    if missing := [name for name in KNOWN if name not in known]:
        raise ValueError(f"{checkpoint} does not say {', '.join(missing)}: it is older than this, or was trained "
                         f"without images; "
                         f"pass {', '.join(f'{name}=...' for name in missing)}, as the training images had them")
    recipe, names = state["recipe"], tuple(known["classes"])
    _check(names, known["image_size"], known["mean"], known["std"])
    if model is None:
        model = create_model(recipe["model"], **{**recipe.get("model_args", {}), "num_classes": len(names)})
    try:
        model.load_state_dict(tested_weights(state))
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} holds other weights than {recipe['model']!r} with {len(names)} classes has; "
                         f"for a run that was "
                         f"given its own network pass model=... ({str(error).splitlines()[-1].strip()})") from error
    return Classifier(model.to(device).eval(), names, int(known["image_size"]), tuple(known["mean"]),
                      tuple(known["std"]),
                      _change_in_tests(recipe, int(known["image_size"])), str(known.get("library", "")))


def _change_in_tests(recipe: Mapping[str, object], size: int) -> Callable[[object], Tensor]:
    """How training brings a test image to the network: a central square, its middle, or ImageNet's way for files."""
    if str(recipe.get("data", "")).startswith("files:"):
        return ImageFiles.centre(size, bicubic=bool(recipe.get("bicubic", False)))
    if recipe.get("windows"):
        whole = ImageFiles.square(size * 8 // 7)
        return lambda image: centre(whole(image)[None], size)[0]
    return ImageFiles.square(size)


def _check(classes: Sequence[str], image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes={list(classes)!r}: at least one, each once")
    if image_size < 1 or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(f"image_size={image_size!r}, mean={list(mean)!r}, std={list(std)!r}: a positive size, and "
                         f"three numbers each, "
                         "std positive")


def classify(
    checkpoint: str | os.PathLike | Classifier, files: Sequence[str | os.PathLike], *, top: int = 5, **known
) -> list[list[tuple[str, float]]]:
    """The `top` names and probabilities of each photograph, the most probable first.

    `known` goes to `load_classifier`. Raises `ValueError` that names a photograph which cannot be read.
    """
    if top < 1:
        raise ValueError(f"top={top!r} must be positive")
    classifier = checkpoint if isinstance(checkpoint, Classifier) else load_classifier(checkpoint, **known)
    files = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    best = classifier.probabilities(files).topk(min(top, len(classifier.classes)))
    return [[(classifier.classes[label], share) for label, share in zip(labels, shares)]
            for labels, shares in zip(best.indices.tolist(), best.values.tolist())]


# --- for other programs -----------------------------------------------------------------------------------------------


def export(source: str | os.PathLike | Classifier | nn.Module, path: str | os.PathLike, **known) -> Path:
    """Write the network to `path` for batches of any size: `.onnx` for ONNX, `.pt2` for `torch.export`.

    It takes normalized images (N, 3, image_size, image_size), `images`, and gives `logits` (N, classes). The file
    tells its `classes` (JSON), `image_size`, `mean`, `std` and `library`: as metadata of the ONNX model, and as the
    extra file `classifier.json` of a `.pt2`. `source` is a checkpoint, a `Classifier`, or a network, for which
    `image_size` and what else is known must be given. Raises `ValueError` for another ending, for a network that does
    not make a score for each class out of such images, and for one that PyTorch cannot export.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"{path} must end in .onnx or .pt2")
    if isinstance(source, nn.Module):
        if missing := [name for name in KNOWN if name not in known]:
            raise ValueError(f"a network alone does not say {', '.join(missing)}; pass them")
        _check(**{name: known[name] for name in KNOWN})
        source = Classifier(source, tuple(known["classes"]), known["image_size"], tuple(known["mean"]),
                            tuple(known["std"]))
    elif not isinstance(source, Classifier):
        source = load_classifier(source, **known)
    told = {name: json.dumps(getattr(source, name), ensure_ascii=False) for name in (*KNOWN, "library")}
    model = copy.deepcopy(source.model).cpu().float().to(memory_format=torch.contiguous_format).eval()
    images = torch.zeros(2, 3, source.image_size, source.image_size)
    _check_scores(model, images, len(source.classes))
    batch = torch.export.Dim("batch", min=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt2":
        with exporting(model, images):
            program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
        torch.export.save(program, path, extra_files={"classifier.json": json.dumps(
            {name: json.loads(value) for name, value in told.items()}, ensure_ascii=False)})
        return path
    try:
        with exporting(model, images):
            program = torch.onnx.export(model, (images,), dynamo=True, dynamic_shapes=({0: batch},),
                                        input_names=["images"], output_names=["logits"], external_data=False,
                                        verbose=False)
    except ImportError as error:
        raise ValueError(f"writing ONNX needs another package: {error}; pip install onnx onnxscript") from error
    program.model.metadata_props.update(told)
    program.save(path)
    return path


@torch.no_grad()
def _check_scores(model: nn.Module, images: Tensor, classes: int) -> None:
    """Raises `ValueError` unless the network makes (N, classes) of the images."""
    name, taken = type(model).__name__, f"images of shape (N, {', '.join(map(str, images.shape[1:]))})"
    try:
        scores = model(images)
    except Exception as error:
        raise ValueError(f"{name} does not take {taken}: {error}") from error
    if not isinstance(scores, Tensor) or scores.shape != (len(images), classes):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"{name} makes {found} of {len(images)} {taken}, not a score for each of {classes} classes")


# --- the command line -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None, write: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(prog="python -m cnnlib.classify", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a file of cnnlib.train, such as run.pt or run.best.pt")
    parser.add_argument("photographs", nargs="*", help="files of any common format")
    parser.add_argument("--top", type=int, default=5, help="how many names to print for each (5)")
    parser.add_argument("--export", metavar="FILE", help="write the network there as well: *.onnx or *.pt2")
    parser.add_argument("--classes", nargs="+", help="names, for a checkpoint that has none; likewise:")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--mean", type=float, nargs=3)
    parser.add_argument("--std", type=float, nargs=3)
    options = vars(parser.parse_args(arguments))
    checkpoint, files, top, target = (options.pop(name) for name in ("checkpoint", "photographs", "top", "export"))
    try:
        if not files and not target:
            raise ValueError("name a photograph, or --export FILE")
        classifier = load_classifier(checkpoint, **options)
        for file, answers in zip(files, classify(classifier, files, top=top)):
            write(file)
            for name, share in answers:
                write(f"  {share:6.1%}  {name}")
        if target:
            write(f"written to {export(classifier, target)}")
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
