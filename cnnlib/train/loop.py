"""The training loop: plain PyTorch, one row of figures per epoch, nothing printed."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.data import Augmentation, Batches, ImageSet, load
from cnnlib.registry import create_model
from cnnlib.train.checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state
from cnnlib.train.recipe import Recipe, Schedule, make_optimizer, total_loss

EVALUATION_BATCH = 500


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    recipe: Recipe,
    *,
    model: nn.Module | None = None,
    data: tuple[ImageSet, ImageSet] | None = None,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: Callable[[Iterable, dict], Iterable] | None = None,
) -> Iterator[dict[str, float]]:
    """Train, and yield after every epoch `epoch, lr, train_loss, train_accuracy, test_loss, test_accuracy, seconds`.

    Accuracies are percentages; the training figures are means over the epoch's own (augmented) batches; `seconds` is the
    time of training without evaluation. `model` and `data` replace what the recipe names: pass a model to keep it.
    With `checkpoint`, a file, the run is saved there after every epoch, and goes on from there if the file exists:
    rows of earlier epochs are yielded again, unchanged. `progress(batches, row)` may wrap the batches of an epoch,
    for a progress bar; it sees the running figures in `row`.
    Raises `ValueError` for a checkpoint of another recipe, and if the loss is no longer a number.
    """
    device = torch.device(device) if device is not None else best_device()
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, **recipe.model_args) if model is None else model
    model.to(device, memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)
    optimizer, schedule = make_optimizer(model, recipe), Schedule(recipe)
    batches, test_batches = make_batches(recipe, data or load(recipe.data), device)

    rows = []
    if checkpoint is not None and Path(checkpoint).exists():
        state = load_checkpoint(checkpoint, recipe=recipe.to_dict())
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        set_random_state(state["random"])
        rows = state["rows"]
        yield from rows

    network = torch.compile(model) if recipe.compile else model
    for epoch in range(len(rows), recipe.epochs):
        batches.epoch = epoch
        row = {"epoch": epoch + 1, **train_epoch(network, batches, optimizer, schedule, recipe, device, progress)}
        row["test_loss"], row["test_accuracy"] = evaluate(network, test_batches, recipe, device)
        schedule.see(row["test_accuracy"])
        rows.append(row)
        if checkpoint is not None:
            save_checkpoint(checkpoint, {
                "recipe": recipe.to_dict(), "epoch": epoch + 1, "rows": rows, "model": model.state_dict(),
                "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "random": random_state(),
            })
        yield row


def make_batches(recipe: Recipe, data: tuple[ImageSet, ImageSet], device: torch.device) -> tuple[Batches, Batches]:
    """Training and test batches on the device, normalized by the training set's statistics."""
    train, test = data
    mean, std = train.statistics()
    if recipe.train_images:
        train = train.first(recipe.train_images)
    augmentation = Augmentation(recipe.crop, recipe.flip, recipe.cutout)
    return (
        Batches(train.to(device), min(recipe.batch_size, len(train)), mean=mean, std=std, shuffle=True, drop_last=True,
                augmentation=augmentation, seed=recipe.seed),
        Batches(test.to(device), EVALUATION_BATCH, mean=mean, std=std),
    )


def train_epoch(
    model: nn.Module, batches: Batches, optimizer: torch.optim.Optimizer, schedule: Schedule, recipe: Recipe,
    device: torch.device, progress: Callable[[Iterable, dict], Iterable] | None = None,
) -> dict[str, float]:
    """One pass over the batches; returns `lr, train_loss, train_accuracy, seconds`."""
    model.train()
    start, row = time.perf_counter(), {}
    loss_sum, correct, seen = torch.zeros((), device=device), torch.zeros((), device=device), 0
    for step, (images, labels) in enumerate(progress(batches, row) if progress else batches):
        lr = schedule.lr(batches.epoch + step / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = lr
        with autocast(recipe, device):
            outputs = model(memory_format(images, recipe))
            loss = total_loss(outputs, labels, recipe)
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()

        logits = outputs if isinstance(outputs, Tensor) else outputs[0]
        loss_sum += loss.detach() * len(labels)
        correct += (logits.detach().argmax(1) == labels).sum()
        seen += len(labels)
        if progress:
            row.update(loss=loss_sum.item() / seen, accuracy=100 * correct.item() / seen)
    loss = loss_sum.item() / seen
    if loss != loss:
        raise ValueError(f"the training loss is not a number in epoch {batches.epoch + 1}: "
                         f"lr={recipe.lr} may be too large; try a smaller one, warmup_epochs or clip")
    return {"lr": lr, "train_loss": loss, "train_accuracy": 100 * correct.item() / seen,
            "seconds": time.perf_counter() - start}


def evaluate(model: nn.Module, batches: Batches, recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent; every image counts once, the last, smaller batch included."""
    logits, labels = predict(model, batches, recipe, device)
    loss = nn.functional.cross_entropy(logits, labels).item()
    return loss, 100 * (logits.argmax(1) == labels).float().mean().item()


@torch.no_grad()
def predict(model: nn.Module, batches: Batches, recipe: Recipe, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (N, num_classes) in float32 and labels (N,), in the order of the set, in evaluation mode."""
    training = model.training
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        with autocast(recipe, device):
            logits.append(model(memory_format(images, recipe)).float())
        labels.append(targets)
    model.train(training)
    return torch.cat(logits), torch.cat(labels)


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")


def memory_format(images: Tensor, recipe: Recipe) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if recipe.channels_last else images
