"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file, never half written."""

import importlib.metadata
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

from cnnlib.train.recipe import Recipe

PARTS = ("recipe", "epoch", "rows", "model", "optimizer", "schedule", "random")


def library_version() -> str:
    """The version of this package, as installed; "unknown" where it runs from a folder alone."""
    import cnnlib

    try:
        return getattr(cnnlib, "__version__", None) or importlib.metadata.version("cnnlib")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def best_path(path: str | os.PathLike) -> Path:
    """Where the best network so far is kept: `run.pt` -> `run.best.pt`."""
    path = Path(path)
    return path.with_name(f"{path.stem}.best{path.suffix}")


def tested_weights(state: Mapping[str, object]) -> Mapping[str, torch.Tensor]:
    """The weights of a checkpoint that its test accuracy speaks of: the running mean where the recipe has one."""
    return state.get("average", state["model"])


def save_checkpoint(path: str | os.PathLike, parts: Mapping[str, object]) -> None:
    """Write `parts` to a temporary file beside `path`, then put it in place of `path` in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        torch.save(dict(parts), file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(
    path: str | os.PathLike, *, recipe: Recipe | Mapping[str, object] | None = None
) -> dict[str, object]:
    """Read a checkpoint; only tensors and plain data are accepted, so a hostile file cannot run code.

    Raises `FileNotFoundError` if there is none, and `ValueError` for a damaged or foreign file, or for one of another
    `recipe`, naming the fields that differ. The file itself is left as it is.
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
        now, then = recipe.to_dict(), {**Recipe().to_dict(), **state["recipe"]}
        if differ := [f"{name} (checkpoint {then[name]!r}, now {now.get(name)!r})"
                      for name in recipe.differences(state["recipe"])]:
            raise ValueError(f"{path} belongs to another recipe; these fields differ: {'; '.join(differ)}")
    return state
