"""A run: all that changes while a recipe is carried out, and how it is kept, so that it can be cut off at any moment."""

import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from cnnlib.data import Batches, FileBatches, ImageFiles, ImageSet, seed_of
from cnnlib.registry import create_model, find_variant
from cnnlib.running import choose_precision
from cnnlib.train import distributed
from cnnlib.train.checkpoint import (
    best_path,
    library_version,
    load_checkpoint,
    only_writer,
    random_state,
    save_checkpoint,
    set_random_state,
    tested_weights,
    try_to_write,
)
from cnnlib.train.optimization import Average, Schedule, make_optimizer
from cnnlib.train.recipe import Recipe

MOST_SKIPPED = 16  # steps without a finite loss at the start, while the scale of float16 goes down
SHOW_EVERY = 10  # steps between two looks at the running figures, which wait for the device


# --- the network and its data -----------------------------------------------------------------------------------------


def arguments_of(model: str) -> list[str]:
    """Names of the keyword arguments of a network of list_models(). Raises `ValueError` for an unknown one."""
    return list(inspect.signature(find_variant(model).network).parameters)


def make_model(recipe: Recipe, classes: Sequence[str]) -> nn.Module:
    """The recipe's network with one output for each class of the data, and with the recipe's `weights`, if it names some.

    Raises `ValueError` if the recipe asks for another number of outputs.
    """
    arguments = dict(recipe.model_args)
    if "num_classes" in arguments_of(recipe.model) and arguments.setdefault("num_classes", len(classes)) != len(classes):
        raise ValueError(f"model_args has num_classes={arguments['num_classes']}, but {_counted(classes)} in the data")
    model = create_model(recipe.model, **arguments)
    if recipe.weights:
        start_from(model, recipe, classes)
    return model


def start_from(model: nn.Module, recipe: Recipe, classes: Sequence[str]) -> list[str]:
    """Give the network the recipe's `weights`: a checkpoint's, or published ones by name. Returns what starts anew.

    Only layers with one output a class may, where the classes are others. Raises `ValueError` for weights of another network.
    """
    own = model.state_dict()
    if Path(recipe.weights).is_file():
        state = load_checkpoint(recipe.weights)
        weights, known = tested_weights(state), state.get("classifier", {}).get("classes")
    else:
        others = {key: value for key, value in recipe.model_args.items() if key != "num_classes"}
        weights, known = create_model(recipe.model, weights=recipe.weights, **others).state_dict(), None
    odd = sorted(set(weights) ^ set(own))
    anew = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    odd += [name for name in anew if own[name].shape != (len(classes), *weights[name].shape[1:])]
    if odd:
        raise ValueError(f"weights={recipe.weights!r} are of another network than {recipe.model!r}: {', '.join(odd[:4])} differ")
    if known is not None and known != list(classes) and not anew:  # as many classes, but others
        head = list(own)[-1].rpartition(".")[0]
        anew = [name for name in own if name.rpartition(".")[0] == head]
    model.load_state_dict({**weights, **{name: own[name] for name in anew}})
    return anew


def _counted(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    return f"there {'is 1 class' if len(classes) == 1 else f'are {len(classes)} classes'} ({shown})"


def classifier_of(recipe: Recipe, train: ImageSet | ImageFiles) -> dict[str, object]:
    """What a checkpoint must say for its network to name a photograph: `classes, image_size, mean, std, library`."""
    stored = train.images.shape[-1] if isinstance(train, ImageSet) else 224
    size = recipe.image_size if recipe.windows or not isinstance(train, ImageSet) and recipe.image_size else stored
    mean, std = (values.tolist() for values in train.statistics())
    return {"classes": list(train.classes), "image_size": size, "mean": mean, "std": std, "library": library_version()}


def memory_format(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def compiled(network: nn.Module, recipe: Recipe) -> nn.Module:
    """Compiled for each size of batch by itself: faster than one program for all sizes."""
    return torch.compile(network, dynamic=False) if recipe.compile else network


# --- the run ----------------------------------------------------------------------------------------------------------


class Run:
    """A recipe being carried out: everything that changes while it is.

    `classifier` says what the network sees (see `classifier_of`); without it nothing is checked against the data.
    """

    def __init__(
        self, recipe: Recipe, model: nn.Module, device: torch.device, classifier: Mapping[str, object] | None = None,
        *, log: Callable[[str], None] | None = None,
    ):
        self.recipe, self.device, self.rows, self.classifier = recipe, device, [], dict(classifier or {})
        self.log = log or (lambda line: None)
        self.precision, self.why = choose_precision(recipe.precision, device)
        self.model = model.to(device, memory_format=memory_format(recipe))
        self.optimizer, self.schedule = make_optimizer(model, recipe), Schedule(recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self.average = Average(model, recipe.average) if recipe.average else None
        size = self.classifier.get("image_size", 32)
        self.network = compiled(distributed.parallel(model, (3, size, size)), recipe)  # what is trained
        self.tested = self.average.model if self.average else compiled(model, recipe)
        self.step, self.sums, self.seconds = 0, torch.zeros(3, device=device), 0.0  # of the epoch that is being trained
        self.core_seconds, self.clock, self.history = 0.0, _core_seconds(), []
        self.between = True  # two steps: the state is one that can be saved
        self.path, self.best, self.stop = None, -1.0, None  # the file; its best accuracy; the signal that asks to stop
        self.save_seconds, self.saved, self.steps_per_epoch = float("inf"), time.monotonic(), 0

    # one epoch

    def steps(
        self, batches: Batches | FileBatches, progress: Callable[[Iterable, dict], Iterable] | None
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
        """The epoch's batches with their numbers, from `self.step` on; between two of them, all that is not training."""
        shown = {}
        start = time.perf_counter()
        source = islice(progress(batches, shown) if progress else batches, self.step, None)
        for step, batch in enumerate(source, self.step):
            if distributed.processes() > 1:  # other dropout in every process, the same whenever the step is repeated
                torch.manual_seed(seed_of(self.recipe.seed, batches.epoch, step, distributed.rank()))
            self.between = False
            yield step, batch
            now = time.perf_counter()
            self.step, self.seconds, start, self.between = step + 1, self.seconds + now - start, now, True
            done = batches.epoch * len(batches) + self.step
            if done & (done - 1) == 0:  # after steps 1, 2, 4, 8, ...: to look waits for the device
                self.check_loss()
            if progress and step % SHOW_EVERY == 0:
                shown.update(zip(("loss", "accuracy"), self.figures(self.sums)))
            late = time.monotonic() - self.saved > self.save_seconds
            if self.path and distributed.any_of(late or self.stop is not None):
                self.save()
                if distributed.any_of(self.stop is not None):
                    self.stop_if_asked()
                start = time.perf_counter()

    def count(self, outputs: Tensor | Sequence[Tensor], loss: Tensor, labels: Tensor) -> None:
        """Add a batch, or a part of one, to the sums of the epoch. Raises `ValueError` if the outputs do not fit the data."""
        logits = outputs if isinstance(outputs, Tensor) else outputs[0]
        classes = self.classifier.get("classes")
        if classes and logits.shape[1] != len(classes):
            raise ValueError(f"the network has {logits.shape[1]} outputs, but {_counted(classes)} in the data")
        batch = torch.stack([loss.detach().float() * len(labels), (logits.detach().argmax(1) == labels).sum(),
                             torch.full_like(loss.detach().float(), len(labels))])
        if self.scaler.is_enabled():  # an infinite loss: its step is skipped, and so is its figure
            batch = torch.where(loss.detach().isinf(), 0.0, batch)
        self.sums += batch

    @staticmethod
    def figures(sums: Tensor) -> tuple[float, float]:
        """Mean loss and accuracy in percent from the sums of losses, correct answers and images."""
        loss, correct, images = sums.tolist()
        return (loss / images, 100 * correct / images) if images else (float("nan"), 0.0)

    def check_loss(self, *, within: bool = True) -> None:
        """Raises `ValueError` if the mean loss so far is no number; within an epoch, skipped steps may have none for a while."""
        loss, _ = self.figures(self.sums)
        if within and self.scaler.is_enabled() and not self.sums[2] and self.step < MOST_SKIPPED:
            return
        if not abs(loss) < float("inf"):
            self.path = None  # such weights are not worth keeping
            raise ValueError(f"the training loss is not a number in epoch {len(self.rows) + 1}, seen after step {self.step}: "
                             f"lr={self.recipe.lr} may be too large; try a smaller one, warmup_epochs or clip")

    def figures_of_epoch(self) -> dict[str, float]:
        """`lr, train_loss, train_accuracy, seconds`, over all processes."""
        self.check_loss(within=False)
        loss, accuracy = self.figures(distributed.summed(self.sums.clone()))
        return {"lr": self.optimizer.param_groups[0]["lr"], "train_loss": loss, "train_accuracy": accuracy,
                "seconds": self.seconds}

    def end_epoch(self, row: Mapping[str, float]) -> None:
        """Take the epoch's row, let the schedule see it, start the next epoch, and save."""
        self.rows.append(row)
        self.schedule.see(row["test_accuracy"])
        self.step, self.sums, self.seconds = 0, torch.zeros_like(self.sums), 0.0
        if self.path:
            self.save(best=row["test_accuracy"] > self.best)
            self.best = max(self.best, row["test_accuracy"])
            if distributed.any_of(self.stop is not None):
                self.stop_if_asked()

    # all of it as data

    def state_dict(self) -> dict[str, object]:
        state = {
            "recipe": self.recipe.to_dict(), "classifier": self.classifier, "epoch": len(self.rows), "rows": self.rows,
            "step": self.step, "steps": self.steps_per_epoch, "sums": distributed.summed(self.sums.clone()).cpu(),
            "seconds": self.seconds, "core_seconds": self.core_seconds + _core_seconds() - self.clock,
            "precision": self.precision, "history": self.history, "random": random_state(self.device),
        }
        for name in ("model", "optimizer", "schedule", "scaler"):
            state[name] = getattr(self, name).state_dict()
        return {**state, "average": self.average.model.state_dict()} if self.average else state

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Take over a state; what older checkpoints lack has the value that it had then."""
        self.rows, self.step, self.seconds = state["rows"], state.get("step", 0), state.get("seconds", 0.0)
        self.core_seconds, self.history = state.get("core_seconds", 0.0), list(state.get("history", []))
        if "sums" in state and distributed.rank() == 0:
            self.sums = state["sums"].to(self.device)
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
        set_random_state(state["random"], self.device)

    # kept in a file

    @contextmanager
    def kept(self, path: Path, allow: Collection[str], save_minutes: float, steps: int) -> Iterator[None]:
        """Go on from `path`, if there is a checkpoint, and be saved there; a first write is tried before the first step."""
        if not save_minutes > 0:
            raise ValueError(f"save_minutes={save_minutes!r} must be positive")
        first = distributed.rank() == 0
        with only_writer(path) if first else nullcontext():
            self.steps_per_epoch = steps
            self.resume(path, allow)
            state = self.state_dict()
            if first and len(self.rows) < self.recipe.epochs:
                try_to_write(path, state)
            self.path, self.save_seconds, self.saved = path, 60 * save_minutes, time.monotonic()
            try:
                yield
            finally:
                self.path = None

    def save(self, *, best: bool = False) -> None:
        """Process 0 writes; all must call. A failure of its disk stops it, and with it the others."""
        state = self.state_dict()
        if distributed.rank() == 0:
            if best:
                save_checkpoint(best_path(self.path), state)
            save_checkpoint(self.path, state)
        self.saved = time.monotonic()

    def resume(self, path: Path, allow: Collection[str]) -> None:
        """Go on from the checkpoint if there is one, or from the best one if only that is left.

        Refuses files that this run would overwrite but did not write, by name. What changed is told and remembered.
        """
        found = [place for place in (path, best_path(path)) if place.exists()]
        states = {place: load_checkpoint(place, recipe=self.recipe, allow=allow) for place in found}
        if best_path(path) in states:
            self.best = max(row["test_accuracy"] for row in states[best_path(path)]["rows"])
        if found:
            self.go_on(found[0], states[found[0]])
            if found[0] != path:
                self.log(f"{path} is gone: going on from {found[0].name}, after epoch {len(self.rows)}")
        else:
            self.remember({})
        done = torch.tensor([len(self.rows), self.step])
        if distributed.summed(done.clone()).tolist() != (distributed.processes() * done).tolist():
            raise ValueError(f"the processes found different checkpoints {path}: it must lie where all of them can read it")

    def go_on(self, path: Path, state: Mapping[str, object]) -> None:
        """Take over the state of a checkpoint of this run, or refuse it by the name of its file."""
        known = state.get("classifier", {}).get("classes")
        if known and self.classifier and known != self.classifier["classes"]:
            raise ValueError(f"{path} was trained for other classes, or in another order: {', '.join(known)}; the data has "
                             f"{', '.join(self.classifier['classes'])}")
        if state.get("step") and state["steps"] != self.steps_per_epoch:
            raise ValueError(f"{path} stands within epoch {state['epoch'] + 1} of {state['steps']} steps, and now there are "
                             f"{self.steps_per_epoch}: take other images where an epoch ends")
        try:
            self.load_state_dict(state)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds another network or optimizer: {error}") from error
        now, then = self.recipe.to_dict(), {**Recipe().to_dict(), **state["recipe"]}
        self.remember({name: [then[name], now[name]] for name in self.recipe.differences(state["recipe"])})

    def remember(self, changed: Mapping[str, list]) -> None:
        """Tell in which precision the run goes on and what has changed, and note both for the checkpoint."""
        self.log(self.why)
        for name, (before, now) in changed.items():
            stretched = self.schedule.stretch(before, len(self.rows)) if name == "epochs" else ""
            self.log(f"{name} is {now!r} after epoch {len(self.rows)}; it was {before!r}{stretched}")
        note = {"precision": self.precision, "device": self.device.type, "torch": str(torch.__version__)}
        if changed or not self.history or any(self.history[-1].get(key) != value for key, value in note.items()):
            self.history.append({"epoch": len(self.rows), "step": self.step, **note, "changed": dict(changed)})

    # cut off

    @contextmanager
    def saved_if_cut_off(self) -> Iterator[None]:
        """Within it signals to stop wait for the end of a step; the run is saved before they, or errors, get through.

        An error within a step leaves the last checkpoint as it is: half a step is no state to go on from.
        """
        with self.signals_noted() if self.path else nullcontext():
            try:
                yield
            except BaseException as error:
                if self.path and self.between and distributed.processes() == 1:
                    try:
                        self.save()
                    except OSError as second:
                        error.add_note(f"The run could not be saved either: {second}")
                raise

    @contextmanager
    def signals_noted(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM in `self.stop`; a second one gets through at once. Only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: object) -> None:
            self.stop = number
            signal.signal(number, before[number])

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_if_asked(self) -> None:
        """Raise what a signal would have raised, or `SystemExit` with the code of one that another process got."""
        if self.path and self.between:
            self.path = None  # all is saved
            if self.stop == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + (self.stop or signal.SIGTERM))

    def stoppable(self, batches: Iterable) -> Iterator:
        """The batches of an evaluation, which ends early if a signal asks for it."""
        for batch in batches:
            yield batch
            if self.stop is not None and distributed.processes() == 1:
                raise KeyboardInterrupt if self.stop == signal.SIGINT else SystemExit(128 + self.stop)


def _core_seconds() -> float:
    """What this process and its finished workers have computed so far, on all cores together."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
