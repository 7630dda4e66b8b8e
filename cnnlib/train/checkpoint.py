"""Checkpoints: everything that a run needs to go on as if it had never stopped, in one file, never half written."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch

PARTS = ("recipe", "epoch", "rows", "model", "optimizer", "schedule", "random")


def random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


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


def load_checkpoint(path: str | os.PathLike, *, recipe: Mapping[str, object] | None = None) -> dict[str, object]:
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
    if recipe is not None:
        theirs = state["recipe"]
        differ = [f"{name} (checkpoint {theirs.get(name)!r}, now {recipe.get(name)!r})"
                  for name in sorted({*recipe, *theirs}) if recipe.get(name) != theirs.get(name)]
        if differ:
            raise ValueError(f"{path} belongs to another recipe; these fields differ: {'; '.join(differ)}")
    return state
