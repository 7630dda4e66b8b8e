"""A campaign: all files of experiments, carried out by one command that goes on where it stopped.

    python -m cnnlib.train.campaign --status                    # what is recorded, what is left, how long it will take
    python -m cnnlib.train.campaign --cores 2                   # do it: two runs at a time, a core each
    python -m cnnlib.train.campaign --cores 8 --threads 4       # two runs at a time, four cores each
    python -m cnnlib.train.campaign --budget gpu                # one run at a time, on the GPU
    python -m cnnlib.train.campaign data/experiments/vgg.toml   # these files only

Files go by their `priority`, runs in the order in which they stand. Stop it at any moment (SIGINT, SIGTERM): the runs are
saved within a step, and the same command goes on. Several campaigns may share a folder; each run has one writer.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from cnnlib.data import book_file
from cnnlib.running import best_device
from cnnlib.train.checkpoint import is_being_written, load_checkpoint
from cnnlib.train.experiments import BUDGETS, Plan, check_recorded, read_plan, read_record
from cnnlib.train.loop import train_epoch
from cnnlib.train.recipe import Recipe
from cnnlib.train.run import Run, make_model

IMAGES = {"cifar10": (50_000, 32, 10), "shapes": (8_000, 32, 10), "imagenette": (9_469, 128, 10)}  # count, size, classes
PROBE_BATCH = 32


@dataclass(frozen=True)
class Job:
    """One run of a plan: what has been done of it, what that has cost, and what is left; costs in core-seconds.

    `state` is "recorded", "running", "begun" or "waiting"; a cost that nobody knows is None.
    """

    plan: Plan
    run: str
    state: str
    epochs: float
    spent: float | None
    left: float | None

    @property
    def recipe(self) -> Recipe:
        return self.plan.recipes[self.run]


def find_plans(paths: Iterable[str | os.PathLike] = (), budget: str = "cpu") -> list[Plan]:
    """The plans in these files and folders, by priority; without any, the book's own. Raises `ValueError` for a bad one."""
    paths = [Path(path) for path in paths] or [book_file("experiments")]
    files = [file for path in paths for file in (sorted(path.glob("*.toml")) if path.is_dir() else [path])]
    if missing := [file for file in files if not file.exists()]:
        raise FileNotFoundError(f"there is no file {missing[0]}")
    return sorted((read_plan(file, budget) for file in files), key=lambda plan: -plan.priority)


# --- what is done and left --------------------------------------------------------------------------------------------


def jobs_of(plans: Sequence[Plan], work: str | os.PathLike = "runs", *, probe: bool = False) -> list[Job]:
    """Every run of the plans with its state and costs.

    What is left is estimated from the run's own epochs so far, else from recorded runs of the same network, images and
    batch, else, with `probe`, from a few steps of it made here.
    """
    records = {plan.record: read_record(plan.record, runs={}) for plan in plans}
    known: dict[tuple, float] = {}  # core-seconds an epoch
    for record in records.values():
        for entry in record["runs"].values():
            if (cost := cost_of(entry)) is not None:
                known[_kind(entry["recipe"])] = cost / len(entry["rows"])
    jobs = []
    for plan in plans:
        for run, recipe in plan.recipes.items():
            entry = records[plan.record]["runs"].get(run)
            if entry is not None:
                check_recorded(plan, run, entry)
                jobs.append(Job(plan, run, "recorded", len(entry["rows"]), cost_of(entry), 0.0))
                continue
            path, epochs, spent = plan.checkpoint(run, work), 0.0, 0.0
            running = is_being_written(path)
            if path.exists():
                state = load_checkpoint(path, recipe=recipe)
                epochs = state["epoch"] + (state["step"] / state["steps"] if state.get("steps") else 0)
                spent = state.get("core_seconds")
            kind = _kind(recipe.to_dict())
            if epochs and spent:
                rate = spent / epochs
            else:
                if probe and kind not in known:
                    known[kind] = seconds_an_epoch(recipe)
                rate = known.get(kind)
            jobs.append(Job(plan, run, "running" if running else "begun" if epochs else "waiting", epochs, spent,
                            None if rate is None else rate * (recipe.epochs - epochs)))
    return jobs


def cost_of(entry: Mapping[str, object]) -> float | None:
    """Core-seconds of a recorded run: as noted, or, of older records, seconds of training by the threads that it had."""
    if "core_seconds" in entry:
        return entry["core_seconds"]
    if "threads" not in entry.get("hardware", {}):
        return None
    return sum(row["seconds"] for row in entry["rows"]) * entry["hardware"]["threads"]


def _kind(recipe: Mapping[str, object]) -> tuple:
    """What runs share that cost the same."""
    recipe = {**Recipe().to_dict(), **recipe}
    return tuple(json.dumps(recipe[name]) for name in ("model", "model_args", "data", "image_size", "train_images",
                                                       "held_out", "test_training", "compile"))


def seconds_an_epoch(recipe: Recipe, *, steps: int = 3) -> float | None:
    """Core-seconds that an epoch of training takes here, from a few steps on noise; None if the number of images is unknown."""
    if recipe.data not in IMAGES:
        return None
    images, size, classes = IMAGES[recipe.data]
    images, size = recipe.train_images or images * (1 - recipe.held_out), recipe.image_size or size
    small = replace(recipe, batch_size=min(recipe.batch_size, PROBE_BATCH), accumulate=1, compile=False)
    noise = torch.randn(small.batch_size, 3, size, size), torch.randint(classes, (small.batch_size,))
    run = Run(small, make_model(replace(small, weights=""), [str(k) for k in range(classes)]), torch.device("cpu"))
    train_epoch(run, _Repeated(noise, 1))
    run.begin_epoch()
    start = time.process_time()
    train_epoch(run, _Repeated(noise, steps))
    return (time.process_time() - start) * images / (steps * small.batch_size)


class _Repeated:
    """One batch, again and again."""

    epoch = 0

    def __init__(self, batch: tuple[torch.Tensor, torch.Tensor], count: int):
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter([self.batch] * self.count)


def status(jobs: Sequence[Job], cores: int, unprobed: int = 0) -> str:
    """A table of all jobs, and what is left of them together; `unprobed` more runs wait for their probes."""
    lines = [f"{'plan':24} {'run':44} {'state':9} {'epochs':>11} {'core-hours':>10} {'left':>8}"]
    for job in jobs:
        spent, left = ("?" if value is None else f"{value / 3600:.2f}" for value in (job.spent, job.left))
        lines.append(f"{job.plan.record.stem:24.24} {job.run:44.44} {job.state:9} "
                     f"{f'{job.epochs:.4g} of {job.recipe.epochs}':>11} {spent:>10} {left:>8}")
    waiting = [job for job in jobs if job.state != "recorded"]
    unknown = sum(job.left is None for job in waiting)
    left = sum(job.left or 0.0 for job in waiting) / 3600
    lines.append(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are recorded; {left:.1f} core-hours are left, "
                 f"{left / cores:.1f} hours on {cores} core{'s' * (cores > 1)}"
                 + (f", and {unknown} runs of unknown cost (--probe tries a few steps of each)" if unknown else "")
                 + (f"; {unprobed} more wait for the probes of their step sizes" if unprobed else ""))
    return "\n".join(lines)


# --- doing it ---------------------------------------------------------------------------------------------------------


class Workers:
    """Processes that carry out one run each; they end with this one."""

    def __init__(self, threads: int, budget: str, work: str | os.PathLike):
        self.threads, self.budget, self.work, self.running = threads, budget, str(work), {}

    def start(self, plan: Plan, runs: Sequence[str]) -> None:
        """Carry out these runs of the plan; with none, its ensembles."""
        command = [sys.executable, "-m", "cnnlib.train", str(plan.path), "--budget", self.budget, "--work", self.work]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        process = subprocess.Popen([*command, *(["--runs", *runs] if runs else [])], env=environment)
        self.running[process] = plan, tuple(runs)

    def wait(self) -> tuple[Plan, tuple[str, ...], int]:
        """Wait until one has ended; returns plan, runs and exit status."""
        while True:
            for process in self.running:
                if process.poll() is not None:
                    return *self.running.pop(process), process.returncode
            time.sleep(0.2)

    def stop(self) -> None:
        """Ask all to save and stop, and wait until they have."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            process.wait()


def carry_out(
    plans: Sequence[Plan], *, cores: int, threads: int = 1, work: str | os.PathLike = "runs", only: Sequence[str] = ("*",),
    log=print,
) -> int:
    """Do every run that is not recorded, those first that are begun, and ensembles whose members are; returns how many failed.

    A run that another process is writing is left to it. One that fails is named, and the rest goes on. A run that waited for
    probes begins next when they are recorded.
    """
    budget, plans = plans[0].budget if plans else "cpu", list(plans)

    def to_do(plans: Sequence[Plan]) -> list[tuple[Plan, tuple[str, ...]]]:
        jobs = sorted(jobs_of(plans, work), key=lambda job: job.state != "begun")
        return [(job.plan, (job.run,)) for job in jobs
                if job.state in ("begun", "waiting") and any(fnmatch(job.run, pattern) for pattern in only)]

    queue = to_do(plans)
    places = 1 if budget == "gpu" else max(1, cores // threads)
    workers, failed, joined = Workers(threads, budget, work), 0, set()
    try:
        while queue or workers.running:
            while queue and len(workers.running) < places:
                plan, runs = queue.pop(0)
                log(f"{plan.record.stem}: {', '.join(runs) or 'ensembles'}")
                workers.start(plan, runs)
            plan, runs, status = workers.wait()
            if status:
                failed += 1
                log(f"{plan.record.stem}: {', '.join(runs) or 'ensembles'} FAILED with status {status}")
            for i, other in enumerate(plans):
                if other.waiting:
                    plans[i] = read_plan(other.path, budget)
                    queue[:0] = [(probed, runs) for probed, runs in to_do([plans[i]]) if runs[0] not in other.recipes]
            record = read_record(plan.record, runs={})
            if plan.ensembles and plan.path not in joined and set(plan.recipes) <= set(record["runs"]):
                joined.add(plan.path)
                queue.insert(0, (plan, ()))
    finally:
        workers.stop()
    return failed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m cnnlib.train.campaign", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", nargs="*", help="files of experiments, or folders of them (default: the book's)")
    parser.add_argument("--status", action="store_true", help="tell what is left, and do nothing")
    parser.add_argument("--probe", action="store_true", help="with --status: try a few steps where no cost is known")
    parser.add_argument("--cores", type=int, default=1, help="how many cores to use (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="cores for each run (default: 1)")
    parser.add_argument("--budget", choices=BUDGETS, help="default: gpu where there is one, else cpu")
    parser.add_argument("--runs", nargs="+", default=["*"], metavar="PATTERN", help='only runs like these, such as "*, seed 0"')
    parser.add_argument("--work", default="runs", metavar="FOLDER", help="where the checkpoints are (default: runs)")
    options = parser.parse_args(arguments)
    if min(options.cores, options.threads) < 1 or options.threads > options.cores:
        raise SystemExit(f"error: --cores {options.cores} --threads {options.threads}: threads must be 1 to cores")
    budget = options.budget or ("cpu" if best_device().type == "cpu" else "gpu")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        plans = find_plans(options.plans, budget)
        if options.status:
            unprobed = sum(len(plan.waiting) for plan in plans)
            print(status(jobs_of(plans, options.work, probe=options.probe), options.cores, unprobed))
        elif failed := carry_out(plans, cores=options.cores, threads=options.threads, work=options.work, only=options.runs,
                                 log=lambda text: print(text, flush=True)):
            raise SystemExit(f"error: {failed} of the runs failed; they stand above")
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on") from None


if __name__ == "__main__":
    main()
