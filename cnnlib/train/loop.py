"""The training loop: plain PyTorch, one row of figures per epoch, nothing printed."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.data import Augmentation, Batches, FileBatches, ImageFiles, ImageSet, load, split
from cnnlib.running import autocast, best_device, decay_groups, predict, predictions
from cnnlib.train import distributed
from cnnlib.train.optimization import mix, total_loss
from cnnlib.train.recipe import Recipe
from cnnlib.train.run import Run, classifier_of, compiled, make_model, memory_format

__all__ = ["Data", "Run", "autocast", "best_device", "compiled", "decay_groups", "evaluate", "fit", "load_data", "make_batches", "make_model",
           "memory_format", "parts_of", "predict", "train_epoch"]
EVALUATION_BATCH = 500
Data = tuple[ImageSet | ImageFiles, ImageSet | ImageFiles]
Progress = Callable[[Iterable, dict], Iterable]


def fit(
    recipe: Recipe,
    *,
    model: nn.Module | None = None,
    data: Data | None = None,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    save_minutes: float = 10.0,
    allow: Collection[str] = (),
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[dict[str, float]]:
    """Train, and yield after every epoch `epoch, lr, train_loss, train_accuracy, test_loss, test_accuracy, seconds`.

    Accuracies are percentages; the training figures are means over the epoch's own (augmented) batches; `seconds` is the
    time of training without evaluation. `model` and `data` replace what the recipe names: pass a model to keep it.
    With `checkpoint`, a file, the run is saved there after every epoch, every `save_minutes` within one, and when it is
    stopped (SIGINT, SIGTERM, an error between two steps); it goes on from there, exactly, if the file exists. Rows of
    earlier epochs are yielded again, unchanged; the state with the best test accuracy stands beside it in
    `best_path(checkpoint)`. `allow` names fields of the recipe that may differ from the checkpoint's (epochs, data,
    precision, accumulate, compile). `progress(batches, row)` may wrap the batches of an epoch, for a progress bar; it sees
    the running figures in `row`; `log(line)` is told once in which precision the run computes, and what has changed.
    Within `distributed.joined()` all processes share the work.
    Raises `ValueError` for a network or a checkpoint that does not fit recipe and data, and for a loss that is no number;
    `OSError` if the checkpoint cannot be written, before the first step.
    """
    device = torch.device(device) if device is not None else best_device()
    data = data or load_data(recipe)
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, data[0].classes) if model is None else model
    batches, test_batches, plain_batches = make_batches(recipe, data, device)
    run = Run(recipe, model, device, classifier_of(recipe, data[0]), log=log)
    with run.kept(Path(checkpoint), allow, save_minutes, len(batches)) if checkpoint is not None else nullcontext():
        yield from run.rows
        for epoch in range(len(run.rows), recipe.epochs):
            batches.epoch = epoch
            with run.saved_if_cut_off():
                row = {"epoch": epoch + 1, **train_epoch(run, batches, progress)}
                row["test_loss"], row["test_accuracy"] = evaluate(run.tested, run.stoppable(test_batches), run.precision)
                if recipe.test_training:
                    row["trainset_loss"], row["trainset_accuracy"] = evaluate(
                        run.tested, run.stoppable(plain_batches), run.precision)
                run.end_epoch(row)
            yield row


def train_epoch(run: Run, batches: Batches | FileBatches, progress: Progress | None = None) -> dict[str, float]:
    """One pass over the batches, or what is left of it; returns `lr, train_loss, train_accuracy, seconds`."""
    recipe, network, optimizer, scaler = run.recipe, run.network.train(), run.optimizer, run.scaler
    for step, (images, labels) in run.steps(batches, progress):
        for group in optimizer.param_groups:
            group["lr"] = run.schedule.lr(batches.epoch + step / len(batches))
        images, targets = mix(images, labels, recipe, epoch=batches.epoch, step=step)
        optimizer.zero_grad()
        for part, last in parts(len(labels), recipe.accumulate):
            with distributed.local(network, only=not last):
                with autocast(run.precision, run.device):
                    outputs = network(images[part].contiguous(memory_format=memory_format(recipe)))
                    loss = total_loss(outputs, [(classes[part], share) for classes, share in targets], recipe)
                scaler.scale(loss * (len(labels[part]) / len(labels))).backward()
            run.count(outputs, loss, labels[part])
        if recipe.clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
        scaler.step(optimizer)  # not if the scaled loss was infinite: then the scale goes down, and the next step is tried
        scaler.update()
        if run.average:
            run.average.update(batches.epoch * len(batches) + step)
    return run.figures_of_epoch()


def parts(count: int, accumulate: int) -> Iterator[tuple[slice, bool]]:
    """The slices of a batch that are taken one after the other, and whether one is the last."""
    bounds = [count * k // accumulate for k in range(accumulate + 1)]
    for low, high in zip(bounds, bounds[1:]):
        if high > low:
            yield slice(low, high), high == count


def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "float32"
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent; every image counts once, over all processes, in evaluation mode."""
    distributed.share_buffers(model)
    device = next(model.parameters()).device
    sums = torch.zeros(3, device=device)  # of losses, of correct answers, of images
    for logits, labels in predictions(model, batches, precision):
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        sums += torch.stack([loss, (logits.argmax(1) == labels).sum(), torch.full_like(loss, len(labels))])
    loss, correct, images = distributed.summed(sums).tolist()
    if not images:
        raise ValueError("there are no images in these batches")
    return loss / images, 100 * correct / images


# --- what a recipe says of images -------------------------------------------------------------------------------------


def load_data(recipe: Recipe) -> Data:
    """The recipe's images; of many processes one downloads them, and the others wait."""
    size = recipe.image_size * 8 // 7 if recipe.windows else recipe.image_size
    with distributed.in_turn():
        return load(recipe.data, image_size=size) if size else load(recipe.data)


def parts_of(recipe: Recipe, data: Data) -> Data:
    """What is trained on, and what is tested on: with `held_out`, part of the training images, and never the test images."""
    train, test = data
    if recipe.held_out:
        kept, away = split(train.labels, recipe.held_out, train.classes)
        train, test = train.rows(kept), replace(train.rows(away), name=f"held out of {train.name}")
    return train.first(recipe.train_images) if recipe.train_images else train, test


def make_batches(
    recipe: Recipe, data: Data, device: torch.device
) -> tuple[Batches | FileBatches, Batches | FileBatches, Batches | FileBatches]:
    """Training batches, test batches, and the training images without augmentation; normalized alike."""
    mean, std = parts_of(replace(recipe, train_images=0), data)[0].statistics()
    train, test = parts_of(recipe, data)
    batch_size = min(recipe.batch_size, len(train))
    if batch_size % distributed.processes():
        raise ValueError(f"batch_size={batch_size} cannot be shared evenly by {distributed.processes()} processes")
    share = {"mean": mean, "std": std, "part": (distributed.rank(), distributed.processes())}
    training = {**share, "shuffle": True, "drop_last": True, "seed": recipe.seed}
    if isinstance(train, ImageFiles):
        size, read = recipe.image_size or 224, {"device": device}
        change = train.augmentation(
            size, resize=recipe.resize, min_area=recipe.min_area, flip=recipe.flip, jitter=recipe.jitter, bicubic=recipe.bicubic,
            randaugment=recipe.randaugment, randaugment_std=recipe.randaugment_std, erase=recipe.erase,
            erase_noise=recipe.erase_noise)
        sets = (FileBatches(train, batch_size, transform=change, **read, **training),
                *(FileBatches(part, EVALUATION_BATCH, transform=part.centre(size, bicubic=recipe.bicubic), **read, **share)
                  for part in (test, train)))
        for batches in sets:
            batches.workers = distributed.workers()
        return sets
    train, test = train.to(device), test.to(device)
    size = recipe.image_size if recipe.windows else 0
    change = Augmentation(recipe.crop, recipe.flip, recipe.cutout, size=size, min_area=recipe.min_area if recipe.windows else 0.0)
    return (Batches(train, batch_size, augmentation=change, **training),
            *(Batches(part, EVALUATION_BATCH, augmentation=Augmentation(size=size), **share) for part in (test, train)))
