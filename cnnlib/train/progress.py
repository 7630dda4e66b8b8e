"""What people see of a run: a bar on the terminal, and curves for TensorBoard. (In a notebook: `notebook.progress`.)"""

import os
from collections.abc import Iterable, Iterator, Mapping


def bar(batches: Iterable, row: Mapping[str, float]) -> Iterator:
    """A progress bar with running loss, accuracy, images per second and time left; on a terminal only."""
    from tqdm import tqdm

    total = len(batches) * batches.batch_size
    with tqdm(total=total, unit="image", leave=False, desc=f"epoch {batches.epoch + 1}", disable=None) as line:
        for batch in batches:
            yield batch
            line.update(len(batch[1]) * batches.part[1])
            line.set_postfix({name: f"{value:.4g}" for name, value in row.items()})


def tensorboard(rows: Iterable[Mapping[str, float]], folder: str | os.PathLike) -> Iterator[Mapping[str, float]]:
    """The rows as they come, each written to `folder` for TensorBoard as well.

    Raises `ValueError` if the package `tensorboard`, which this one does not bring, is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(f"TensorBoard logs need the package 'tensorboard', which is not installed ({error})") from error
    with SummaryWriter(os.fspath(folder)) as writer:
        for row in rows:
            for name, value in row.items():
                writer.add_scalar(name, value, row["epoch"])
            writer.flush()
            yield row
