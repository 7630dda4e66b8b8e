"""The training loop: plain PyTorch, one row of figures per epoch, nothing printed."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.data import Augmentation, Batches, FileBatches, ImageFiles, ImageSet, load, seed_of
from cnnlib.registry import create_model
from cnnlib.train import distributed
from cnnlib.train.checkpoint import (
    best_path, library_version, load_checkpoint, random_state, save_checkpoint, set_random_state,
)
from cnnlib.train.optimization import Average, Schedule, make_optimizer, mix, total_loss
from cnnlib.train.recipe import Recipe

EVALUATION_BATCH = 500
Data = tuple[ImageSet | ImageFiles, ImageSet | ImageFiles]


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    recipe: Recipe,
    *,
    model: nn.Module | None = None,
    data: Data | None = None,
    device: torch.device | str | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: Callable[[Iterable, dict], Iterable] | None = None,
) -> Iterator[dict[str, float]]:
    """Train, and yield after every epoch `epoch, lr, train_loss, train_accuracy, test_loss, test_accuracy, seconds`.

    Accuracies are percentages; the training figures are means over the epoch's own (augmented) batches; `seconds` is the
    time of training without evaluation. `model` and `data` replace what the recipe names: pass a model to keep it.
    With `checkpoint`, a file, the run is saved there after every epoch, and goes on from there if the file exists:
    rows of earlier epochs are yielded again, unchanged; the state with the best test accuracy stands beside it in
    `best_path(checkpoint)`. `progress(batches, row)` may wrap the batches of an epoch, for a progress bar; it sees the
    running figures in `row`. Within `distributed.joined()` all processes share the work.
    Raises `ValueError` for a checkpoint of another recipe, and if the loss is no longer a number.
    """
    device = torch.device(device) if device is not None else best_device()
    torch.manual_seed(recipe.seed)
    model = create_model(recipe.model, **recipe.model_args) if model is None else model
    data = data or load_data(recipe)
    batches, test_batches, plain_batches = make_batches(recipe, data, device)
    run = Run(recipe, model, device, classifier(recipe, data))
    if checkpoint is not None:
        run.resume(Path(checkpoint))
        yield from run.rows

    for epoch in range(len(run.rows), recipe.epochs):
        batches.epoch = epoch
        row = {"epoch": epoch + 1, **train_epoch(run, batches, progress)}
        row["test_loss"], row["test_accuracy"] = evaluate(run.tested, test_batches, recipe, device)
        if recipe.test_training:
            row["trainset_loss"], row["trainset_accuracy"] = evaluate(run.tested, plain_batches, recipe, device)
        run.schedule.see(row["test_accuracy"])
        run.rows.append(row)
        if checkpoint is not None:
            run.save(Path(checkpoint))
        yield row


class Run:
    """A recipe being carried out: everything that changes while it is."""

    def __init__(self, recipe: Recipe, model: nn.Module, device: torch.device, classifier: Mapping[str, object] | None = None):
        self.recipe, self.device, self.rows, self.classifier = recipe, device, [], classifier or {}
        self.model = model.to(device, memory_format=memory_format(recipe))
        self.optimizer, self.schedule = make_optimizer(model, recipe), Schedule(recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
        self.average = Average(model, recipe.average) if recipe.average else None
        self.network = compiled(distributed.parallel(model), recipe)  # what is trained
        self.tested = self.average.model if self.average else compiled(model, recipe)

    def state_dict(self) -> dict[str, object]:
        state = {"recipe": self.recipe.to_dict(), "classifier": self.classifier, "epoch": len(self.rows), "rows": self.rows,
                 "random": random_state()}
        for name in ("model", "optimizer", "schedule", "scaler"):
            state[name] = getattr(self, name).state_dict()
        return {**state, "average": self.average.model.state_dict()} if self.average else state

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self.rows = state["rows"]
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        set_random_state(state["random"])

    def save(self, checkpoint: Path) -> None:
        """Process 0 writes; a failure of its disk stops it, and torchrun the others."""
        if distributed.rank() == 0:
            state = self.state_dict()
            if self.rows[-1]["test_accuracy"] > max((row["test_accuracy"] for row in self.rows[:-1]), default=-1.0):
                save_checkpoint(best_path(checkpoint), state)
            save_checkpoint(checkpoint, state)

    def resume(self, checkpoint: Path) -> None:
        """Go on from the checkpoint if there is one; refuse files that this run would overwrite but did not write."""
        if best_path(checkpoint).exists():
            load_checkpoint(best_path(checkpoint), recipe=self.recipe)
        if checkpoint.exists():
            state = load_checkpoint(checkpoint, recipe=self.recipe)
            try:
                self.load_state_dict(state)
            except (RuntimeError, KeyError, ValueError) as error:
                raise ValueError(f"{checkpoint} holds another network or optimizer: {error}") from error


def train_epoch(
    run: Run, batches: Batches | FileBatches, progress: Callable[[Iterable, dict], Iterable] | None = None
) -> dict[str, float]:
    """One pass over the batches; returns `lr, train_loss, train_accuracy, seconds`."""
    recipe, network, optimizer, scaler = run.recipe, run.network.train(), run.optimizer, run.scaler
    if distributed.processes() > 1:  # other dropout in every process, the same whenever the epoch is repeated
        torch.manual_seed(seed_of(recipe.seed, batches.epoch, distributed.rank()))
    start, row = time.perf_counter(), {}
    sums, seen = torch.zeros(2, device=run.device), 0  # sums of losses and of correct answers; images
    for step, (images, labels) in enumerate(progress(batches, row) if progress else batches):
        lr = run.schedule.lr(batches.epoch + step / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = lr
        images, targets = mix(images, labels, recipe, epoch=batches.epoch, step=step)
        optimizer.zero_grad()
        for part, last in parts(len(labels), recipe.accumulate):
            with distributed.local(network, only=not last):
                with autocast(recipe, run.device):
                    outputs = network(images[part].contiguous(memory_format=memory_format(recipe)))
                    loss = total_loss(outputs, [(classes[part], share) for classes, share in targets], recipe)
                scaler.scale(loss * (len(labels[part]) / len(labels))).backward()
            logits = outputs if isinstance(outputs, Tensor) else outputs[0]
            correct = (logits.detach().argmax(1) == labels[part]).sum()
            sums += torch.stack([loss.detach() * len(labels[part]), correct])
        if recipe.clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
        scaler.step(optimizer)
        scaler.update()
        if run.average:
            run.average.update(batches.epoch * len(batches) + step)
        seen += len(labels)
        if progress and step % 10 == 0:  # not every time, because it waits for the device
            row.update(zip(("loss", "accuracy"), figures(sums, seen)))

    loss, accuracy = figures(distributed.summed(sums), seen * distributed.processes())
    if loss != loss:
        raise ValueError(f"the training loss is not a number in epoch {batches.epoch + 1}: "
                         f"lr={recipe.lr} may be too large; try a smaller one, warmup_epochs or clip")
    return {"lr": lr, "train_loss": loss, "train_accuracy": accuracy, "seconds": time.perf_counter() - start}


def figures(sums: Tensor, images: float) -> tuple[float, float]:
    """Mean loss and accuracy in percent from the sums of losses and of correct answers over so many images."""
    loss, correct = sums.tolist()
    return loss / images, 100 * correct / images


def parts(count: int, accumulate: int) -> Iterator[tuple[slice, bool]]:
    """The slices of a batch that are taken one after the other, and whether one is the last."""
    bounds = [count * k // accumulate for k in range(accumulate + 1)]
    for low, high in zip(bounds, bounds[1:]):
        if high > low:
            yield slice(low, high), high == count


def evaluate(
    model: nn.Module, batches: Batches | FileBatches, recipe: Recipe, device: torch.device
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy in percent; every image counts once, the last, smaller batch included."""
    distributed.share_buffers(model)
    logits, labels = predict(model, batches, recipe, device)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    correct = (logits.argmax(1) == labels).sum()
    sums = distributed.summed(torch.stack([loss, correct, torch.full_like(loss, len(labels))]))
    return figures(sums[:2], sums[2].item())


@torch.no_grad()
def predict(
    model: nn.Module, batches: Batches | FileBatches, recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits (N, num_classes) in float32 and labels (N,), in the order of the set, in evaluation mode.

    With several processes: of this process's part of every batch.
    """
    training = model.training
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        if len(targets):
            with autocast(recipe, device):
                logits.append(model(images.contiguous(memory_format=memory_format(recipe))).float())
            labels.append(targets)
    model.train(training)
    return torch.cat(logits), torch.cat(labels)


# --- each switch, read in one place -----------------------------------------------------------------------------------


def load_data(recipe: Recipe) -> Data:
    return load(recipe.data, image_size=recipe.image_size) if recipe.image_size else load(recipe.data)


def make_batches(
    recipe: Recipe, data: Data, device: torch.device
) -> tuple[Batches | FileBatches, Batches | FileBatches, Batches | FileBatches]:
    """Training batches, test batches, and the training images without augmentation; normalized alike."""
    train, test = data
    mean, std = train.statistics()
    if recipe.train_images:
        train = train.first(recipe.train_images)
    batch_size = min(recipe.batch_size, len(train))
    if batch_size % distributed.processes():
        raise ValueError(f"batch_size={batch_size} cannot be shared evenly by {distributed.processes()} processes")
    share = {"mean": mean, "std": std, "part": (distributed.rank(), distributed.processes())}
    training = {**share, "shuffle": True, "drop_last": True, "seed": recipe.seed}
    if isinstance(train, ImageFiles):
        size = recipe.image_size or 224
        change = train.augmentation(size, resize=recipe.resize, min_area=recipe.min_area, flip=recipe.flip,
                                    jitter=recipe.jitter, randaugment=recipe.randaugment, erase=recipe.erase)
        return (FileBatches(train, batch_size, device=device, transform=change, **training),
                *(FileBatches(part, EVALUATION_BATCH, device=device, transform=part.centre(size), **share)
                  for part in (test, train)))
    train, test = train.to(device), test.to(device)
    augmentation = Augmentation(recipe.crop, recipe.flip, recipe.cutout)
    return (Batches(train, batch_size, augmentation=augmentation, **training),
            *(Batches(part, EVALUATION_BATCH, **share) for part in (test, train)))


def classifier(recipe: Recipe, data: Data) -> dict[str, object]:
    """What a checkpoint must say for its network to name a photograph: `classes, image_size, mean, std, library`."""
    train, _ = data
    size = recipe.image_size or (train.images.shape[-1] if isinstance(train, ImageSet) else 224)
    mean, std = (values.tolist() for values in train.statistics())
    return {"classes": list(train.classes), "image_size": size, "mean": mean, "std": std, "library": library_version()}


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    half = torch.float16 if recipe.precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, half, enabled=recipe.precision != "float32")


def memory_format(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def compiled(network: nn.Module, recipe: Recipe) -> nn.Module:
    """Compiled for each size of batch by itself: faster than one program for all sizes."""
    return torch.compile(network, dynamic=False) if recipe.compile else network
