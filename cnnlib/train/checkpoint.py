"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file, never half written."""

import importlib.metadata
import io
import os
import pickle
import socket
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import torch

from cnnlib.train.recipe import Recipe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTS = ("recipe", "epoch", "rows", "model", "optimizer", "schedule", "random")
CHANGEABLE = ("accumulate", "compile", "data", "epochs", "precision")  # what a run may go on with, if it is asked for


def library_version() -> str:
    """The version of this package, as installed; "unknown" where it runs from a folder alone."""
    import cnnlib

    try:
        return getattr(cnnlib, "__version__", None) or importlib.metadata.version("cnnlib")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The random states that training draws from: the processor's and the device's."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())


def best_path(path: str | os.PathLike) -> Path:
    """Where the best network so far is kept: `run.pt` -> `run.best.pt`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.best{path.suffix}")


def tested_weights(state: Mapping[str, object]) -> Mapping[str, torch.Tensor]:
    """The weights of a checkpoint that its test accuracy speaks of: the running mean where the recipe has one."""
    return state.get("average", state["model"])


# --- files ------------------------------------------------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> None:
    """Write to a file of its own beside `path`, then put that in place of `path` in one step: whole or not at all.

    Raises `OSError` that names `path` if the folder or the disk refuses; what stood there stays.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"{path} cannot be written: {error.strerror or error}") from error


def save_checkpoint(path: str | os.PathLike, parts: Mapping[str, object]) -> None:
    """Write `parts`, whole or not at all. Raises `OSError` that names the file if it cannot be written."""
    content = io.BytesIO()  # not straight to the file: PyTorch's writer does not survive a full disk
    torch.save(dict(parts), content)
    write_whole(Path(path), content.getbuffer())


def try_to_write(path: Path, parts: Mapping[str, object]) -> None:
    """Write `parts` beside `path` and take them away again. Raises `OSError` as a real write would."""
    trial = path.with_name(f"{path.name}.trial")
    save_checkpoint(trial, parts)
    trial.unlink()


def load_checkpoint(
    path: str | os.PathLike, *, recipe: Recipe | Mapping[str, object] | None = None, allow: Collection[str] = ()
) -> dict[str, object]:
    """Read a checkpoint; only tensors and plain data are accepted, so a hostile file cannot run code.

    Raises `FileNotFoundError` if there is none, and `ValueError` for a damaged or foreign file, or for one of another
    `recipe`, naming the fields that differ, except those that `allow` names. The file itself is left as it is.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged or not a checkpoint of plain data "
                         f"({(str(error) or repr(error)).splitlines()[0]}); move it away to start anew") from error
    missing = [part for part in PARTS if not isinstance(state, dict) or part not in state]
    if missing:
        raise ValueError(f"{path} is not a checkpoint of this package: it lacks {', '.join(missing)}")
    if not isinstance(state["recipe"], dict):
        raise ValueError(f"{path} is not a checkpoint of this package: its recipe is {state['recipe']!r}")
    if recipe is not None:
        recipe = recipe if isinstance(recipe, Recipe) else Recipe.from_dict(recipe)
        check_recipe(path, recipe, state, allow)
    return state


def check_recipe(path: Path, recipe: Recipe, state: Mapping[str, object], allow: Collection[str]) -> None:
    """Refuse a checkpoint of another recipe, except for changed fields that are allowed; say which could be."""
    if unknown := sorted(set(allow) - set(CHANGEABLE)):
        raise ValueError(f"{', '.join(unknown)} cannot change within a run; only {', '.join(CHANGEABLE)} can")
    now, then = recipe.to_dict(), {**Recipe().to_dict(), **state["recipe"]}
    differ = recipe.differences(state["recipe"])
    if refused := [name for name in differ if name not in allow]:
        could = [name for name in refused if name in CHANGEABLE]
        raise ValueError(
            f"{path} belongs to another recipe; these fields differ: "
            + "; ".join(f"{name} (checkpoint {then[name]!r}, now {now.get(name)!r})" for name in refused)
            + (f"; to go on with the new {' and '.join(could)}, say so: --change {' '.join(could)}" if could == refused else ""))
    if "epochs" in differ and recipe.epochs < state["epoch"] + bool(state.get("step")):
        raise ValueError(f"{path} has {state['epoch']} epochs behind it; epochs={recipe.epochs} is too few")


@contextmanager
def only_writer(path: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Be the one that writes `path`; a lock that a dead process left behind does not count.

    Raises `ValueError` that names the other process if there is one, still after `wait_seconds`. Where the file system knows no locks, nothing is
    locked. The lock is the file `path` + ".lock", gone afterwards; temporary files of killed writers go as well.
    """
    lock = path.with_name(f"{path.name}.lock")
    if lock.resolve() in _own:
        raise ValueError(f"{path} is being written by this process already; close the run that does")
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _locked(lock)
            break
        except OSError as error:
            raise OSError(error.errno, f"{path} cannot be written: {error.strerror or error}") from error
        except ValueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    own = lock.resolve()
    _own.add(own)
    try:
        for name in (path.name, best_path(path).name):
            for left in [*path.parent.glob(f"{escape(name)}.*.part"), *path.parent.glob(f"{escape(name)}.trial")]:
                left.unlink(missing_ok=True)
        yield
    finally:
        _own.discard(own)
        if file is not None:
            lock.unlink(missing_ok=True)
            file.close()


_own: set[Path] = set()  # locks of this process, which the system would grant it twice


def _locked(lock: Path) -> io.TextIOWrapper | None:
    """The lock file, open and locked: by the system, which forgets the locks of the dead, and not by its existence."""
    while fcntl is not None:
        file = open(lock, "a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ValueError(f"{lock.with_suffix('')} is being written by {owner}; one run needs one writer") from None
        except OSError:  # no locks on this file system
            file.close()
            return None
        if lock.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            return file
        file.close()  # its last owner took it away meanwhile
    return None


def is_being_written(path: Path) -> bool:
    """Whether a living process holds the lock of `path`."""
    lock = path.with_name(f"{path.name}.lock")
    if not lock.exists():
        return False
    try:
        with only_writer(path):
            return False
    except ValueError:
        return True
