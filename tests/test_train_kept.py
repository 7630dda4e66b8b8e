"""Long runs: cut off at any moment, on any disk, they go on to the same bits, or say by name why they cannot."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cnnlib import data
from cnnlib.train import Recipe, best_path, fit, load_checkpoint, save_checkpoint

RECIPE = Recipe(epochs=3, batch_size=16, lr=0.02, crop=2, flip=True, cutout=4, mixup=0.2, average=0.9)
STEPS = 4  # an epoch


@pytest.fixture(scope="module")
def small():
    return data.shapes(64, 20, image_size=16)


def network(classes=10):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
                         nn.Linear(8 * 7 * 7, classes))


def run(recipe, small, **options):
    model = network()
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in fit(recipe, model=model, data=small, **options)]
    return rows, model.state_dict()


def assert_same_bits(a, b):
    assert a[0] == b[0]
    assert all(torch.equal(one, two) for one, two in zip(a[1].values(), b[1].values(), strict=True))


@pytest.fixture(scope="module")
def whole(small):
    return run(RECIPE, small)


def at_step(step, act):
    """A progress that calls `act` when the batch with this number, counted over all epochs, has been fetched."""

    def progress(batches, row):
        for number, batch in enumerate(batches, batches.epoch * STEPS):
            if number == step:
                act()
            yield batch

    return progress


# cut off

WORKER = """
import json, os, sys, torch
torch.set_num_threads(1)
from cnnlib import data
from cnnlib.train import Recipe, fit
sys.path.insert(0, sys.argv[2])
from test_train_kept import RECIPE, kill_again_and_again
kill_again_and_again(sys.argv[1], int(sys.argv[3]), int(sys.argv[4]))
"""


def kill_again_and_again(path, kills, seed):
    """Carry out a run in children of this process, each killed at a random moment; then once more, to its end."""
    small, killed, draw = data.shapes(64, 20, image_size=16), 0, torch.Generator().manual_seed(seed)
    recipe = Recipe.from_dict({**RECIPE.to_dict(), "epochs": 16})
    start = time.time()
    list(fit(recipe, model=network(), data=small, checkpoint=path + ".whole", save_minutes=1e-9))
    longest, last = 1.5 * (time.time() - start), (0, 0)
    while killed < kills:
        child = os.fork()
        if not child:
            list(fit(recipe, model=network(), data=small, checkpoint=path, save_minutes=1e-9))
            os._exit(0)
        time.sleep(longest * torch.rand((), generator=draw).item() ** 2 / 4)
        os.kill(child, signal.SIGKILL)
        killed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        if os.path.exists(path):
            state = load_checkpoint(path)
            assert (state["epoch"], state["step"]) >= last, "nothing that was saved is lost"
            last = state["epoch"], state["step"]
            if last == (16, 0):  # all done: a new run
                assert_same_state(path, path + ".whole")
                os.unlink(path)
                os.unlink(best_path(path))
                last = 0, 0
    list(fit(recipe, model=network(), data=small, checkpoint=path, save_minutes=1e-9))
    assert_same_state(path, path + ".whole")
    left = sorted(name for name in os.listdir(os.path.dirname(path)) if name.endswith((".part", ".lock", ".trial")))
    assert not left, f"killed writers left {left}"
    print(json.dumps(killed))


def assert_same_state(path, other):
    one, two = load_checkpoint(path), load_checkpoint(other)
    drop = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in one["rows"]] == [
        {k: v for k, v in row.items() if k not in drop} for row in two["rows"]]
    for part in ("model", "average"):
        assert all(torch.equal(a, b) for a, b in zip(one[part].values(), two[part].values(), strict=True))
    assert torch.equal(one["random"]["cpu"], two["random"]["cpu"])


def test_what_killed_writers_left_goes_and_nothing_else(small, tmp_path):
    names = ("run.pt", "run.best.pt", "other.pt", "run.pt.part", "run2.pt.1.part", "run.pt.txt")
    gone = ("run.pt.0a.part", "run.best.pt.0b.part", "run.pt.trial.0c.part", "run.pt.trial")
    for name in (*names[2:], *gone):
        (tmp_path / name).write_text("half")
    run(RECIPE, small, checkpoint=tmp_path / "run.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def killed(tmp_path, kills, seed):
    done = subprocess.run([sys.executable, "-c", WORKER, str(tmp_path / "run.pt"), os.path.dirname(__file__), str(kills), str(seed)],
                          capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) == kills


def test_killed_at_random_moments_it_goes_on_to_the_same_bits(tmp_path):
    killed(tmp_path, 5, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills(tmp_path):
    killed(tmp_path, 100, 1)


@pytest.mark.parametrize("step", [0, 5, 11])
@pytest.mark.parametrize("number, raised", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_waits_for_the_step_and_the_run_is_saved(small, whole, tmp_path, step, number, raised):
    before = signal.getsignal(number)
    with pytest.raises(raised) as caught:
        run(RECIPE, small, checkpoint=tmp_path / "run.pt", progress=at_step(step, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) == before and (raised is KeyboardInterrupt or caught.value.code == 143)
    state = load_checkpoint(tmp_path / "run.pt")
    assert state["epoch"] * STEPS + state["step"] == step + 1
    assert_same_bits(run(RECIPE, small, checkpoint=tmp_path / "run.pt"), whole)


def test_a_signal_during_evaluation(small, whole, tmp_path, monkeypatch):
    from cnnlib.train import run as runs

    stop = runs.Run.stoppable
    monkeypatch.setattr(runs.Run, "stoppable", lambda self, batches: (os.kill(os.getpid(), signal.SIGTERM), stop(self, batches))[1])
    with pytest.raises(SystemExit):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt")
    monkeypatch.undo()
    state = load_checkpoint(tmp_path / "run.pt")
    assert (state["epoch"], state["step"]) == (0, STEPS) and not state["rows"]
    assert_same_bits(run(RECIPE, small, checkpoint=tmp_path / "run.pt"), whole)


def test_a_second_signal_gets_through_at_once(small, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt", progress=at_step(2, twice))


def fail():
    raise RuntimeError("no more images")


def test_an_error_between_two_steps_loses_nothing(small, whole, tmp_path):
    with pytest.raises(RuntimeError, match="no more images"):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt", progress=at_step(6, fail))
    state = load_checkpoint(tmp_path / "run.pt")
    assert (state["epoch"], state["step"]) == (1, 2)
    assert_same_bits(run(RECIPE, small, checkpoint=tmp_path / "run.pt"), whole)


class FailsOnce(nn.Module):
    count = 0

    def forward(self, x):
        FailsOnce.count += self.training
        if FailsOnce.count == 7:
            raise MemoryError("full")
        return x


def test_an_error_within_a_step_leaves_the_last_checkpoint(small, whole, tmp_path):
    with pytest.raises(MemoryError):
        list(fit(RECIPE, model=nn.Sequential(*network(), FailsOnce()), data=small, checkpoint=tmp_path / "run.pt"))
    state = load_checkpoint(tmp_path / "run.pt")
    assert (state["epoch"], state["step"]) == (1, 0), "its forward pass has moved the statistics of batch norm"
    assert_same_bits(run(RECIPE, small, checkpoint=tmp_path / "run.pt"), whole)


def test_saved_within_an_epoch(small, tmp_path, monkeypatch):
    saved = []
    from cnnlib.train import run as runs

    monkeypatch.setattr(runs, "save_checkpoint", lambda path, state: saved.append((state["epoch"], state["step"])))
    run(RECIPE, small, checkpoint=tmp_path / "run.pt", save_minutes=1e-9)
    assert [place for place in saved if place[1]] == [(epoch, step) for epoch in range(3) for step in range(1, STEPS + 1)]
    saved.clear()
    run(RECIPE, small, checkpoint=tmp_path / "other.pt")
    assert not [place for place in saved if place[1]], "ten minutes have not passed"
    saved.clear()
    clock = [0.0]  # seconds; 25 pass with every batch

    def progress(batches, row):
        for batch in batches:
            clock[0] += 25
            yield batch

    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=lambda: clock[0]))
    run(RECIPE, small, checkpoint=tmp_path / "minutes.pt", save_minutes=1, progress=progress)
    assert [place for place in saved if place[1]] == [(epoch, 3) for epoch in range(3)], "after 75 seconds; then at the epoch's end"
    with pytest.raises(ValueError, match="save_minutes=0"):
        run(RECIPE, small, checkpoint=tmp_path / "other.pt", save_minutes=0)


def test_core_seconds_add_up_over_resumes(small, tmp_path):
    with pytest.raises(RuntimeError):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt", progress=at_step(6, fail))
    first = load_checkpoint(tmp_path / "run.pt")["core_seconds"]
    start = time.process_time()
    run(RECIPE, small, checkpoint=tmp_path / "run.pt")
    second = load_checkpoint(tmp_path / "run.pt")["core_seconds"]
    assert 0 < first < second < first + time.process_time() - start + 0.05


# disks and folders


def test_the_first_write_is_tried_before_the_first_step(small, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    started = []
    with pytest.raises(OSError, match="run.pt cannot be written"):
        run(RECIPE, small, checkpoint=tmp_path / "file" / "run.pt", progress=at_step(0, lambda: started.append(1)))
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(PermissionError, match="run.pt cannot be written: Permission denied"):
            run(RECIPE, small, checkpoint=tmp_path / "locked" / "run.pt")
    assert not started


class SmallDisk:
    """Within it no file may grow beyond so many bytes."""

    def __init__(self, size):
        self.size, self.before = size, resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_full_disk(small, whole, tmp_path):
    with SmallDisk(20_000), pytest.raises(OSError, match="run.pt.trial cannot be written"):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt")
    assert not list(tmp_path.iterdir()), "nothing is left of the trial"
    disk = SmallDisk(20_000)
    with pytest.raises(OSError, match="run(.best)?.pt cannot be written"):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt", progress=at_step(6, disk.__enter__))
    disk.__exit__()
    assert load_checkpoint(tmp_path / "run.pt")["epoch"] == 1, "what was saved is there"
    assert {path.name for path in tmp_path.iterdir()} == {"run.pt", "run.best.pt"}
    assert_same_bits(run(RECIPE, small, checkpoint=tmp_path / "run.pt"), whole)


def test_a_folder_that_vanishes_is_made_again(small, whole, tmp_path):
    place = tmp_path / "gone" / "run.pt"
    assert_same_bits(run(RECIPE, small, checkpoint=place, progress=at_step(6, lambda: shutil.rmtree(place.parent))), whole)
    assert load_checkpoint(place)["epoch"] == 3


# one writer, and the best


def test_one_writer(small, tmp_path):
    first = fit(RECIPE, model=network(), data=small, checkpoint=tmp_path / "run.pt")
    next(first)
    with pytest.raises(ValueError, match="run.pt is being written by this process already"):
        next(fit(RECIPE, model=network(), data=small, checkpoint=tmp_path / "run.pt"))
    first.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); "
         "f.write('process 7 on mars'); f.flush(); print('held', flush=True); time.sleep(100)", str(tmp_path / "run.pt.lock")],
        stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="run.pt is being written by process 7 on mars; one run needs one writer"):
            next(fit(RECIPE, model=network(), data=small, checkpoint=tmp_path / "run.pt"))
    finally:
        holder.kill()
        holder.wait()
    assert (tmp_path / "run.pt.lock").exists(), "the dead process left its lock"
    assert len(run(RECIPE, small, checkpoint=tmp_path / "run.pt")[0]) == 3
    assert not (tmp_path / "run.pt.lock").exists()


def test_the_best_is_never_replaced_by_a_worse_one(small, whole, tmp_path):
    path = tmp_path / "run.pt"
    run(Recipe.from_dict({**RECIPE.to_dict(), "epochs": 1}), small, checkpoint=path)
    path.unlink()
    state = load_checkpoint(best_path(path))
    grown = Recipe.from_dict({**state["recipe"], "epochs": 3})
    state["rows"][0]["test_accuracy"] = 99.5
    save_checkpoint(best_path(path), state)
    before, lines = best_path(path).read_bytes(), []
    rows, _ = run(grown, small, checkpoint=path, allow=["epochs"], log=lines.append)
    assert best_path(path).read_bytes() == before and [row["epoch"] for row in rows] == [1, 2, 3]
    assert any("run.pt is gone: going on from run.best.pt, after epoch 1" in line for line in lines)


# changes on request


def test_a_run_may_grow(small, tmp_path):
    path, lines = tmp_path / "run.pt", []
    longer = Recipe.from_dict({**RECIPE.to_dict(), "epochs": 6})
    run(RECIPE, small, checkpoint=path)
    with pytest.raises(ValueError, match=r"differ: epochs \(checkpoint 3, now 6\); to go on with the new epochs.*--change epochs"):
        run(longer, small, checkpoint=path)
    rows, _ = run(longer, small, checkpoint=path, allow=["epochs"], log=lines.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert any("cosine schedule stretches with it: lr goes on at 0.01, where the shorter run had come down to 0" in line
               for line in lines)
    state = load_checkpoint(path)
    assert state["recipe"]["epochs"] == 6 and state["history"][-1]["changed"] == {"epochs": [3, 6]}
    assert state["history"][-1]["epoch"] == 3
    with pytest.raises(ValueError, match="6 epochs behind it; epochs=2 is too few"):
        run(Recipe.from_dict({**RECIPE.to_dict(), "epochs": 2}), small, checkpoint=path, allow=["epochs"])
    other = Recipe.from_dict({**RECIPE.to_dict(), "epochs": 7, "lr": 0.5})
    with pytest.raises(ValueError, match=r"these fields differ: lr \("):
        run(other, small, checkpoint=path, allow=["epochs"])
    with pytest.raises(ValueError, match="lr cannot change within a run; only accumulate, compile, data, epochs, precision can"):
        run(RECIPE, small, checkpoint=path, allow=["lr"])


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"precision": "bfloat16"}, {"precision": "float16"}, {"data": "folder:elsewhere"}],
                         ids=str)
def test_what_may_change_on_request(small, tmp_path, changes):
    path, [name] = tmp_path / "run.pt", changes
    with pytest.raises(RuntimeError):
        run(RECIPE, small, checkpoint=path, progress=at_step(6, fail))
    changed = Recipe.from_dict({**RECIPE.to_dict(), **changes})
    with pytest.raises(ValueError, match=f"these fields differ: {name}"):
        run(changed, small, checkpoint=path)
    rows, _ = run(changed, small, checkpoint=path, allow=[name])
    history = load_checkpoint(path)["history"]
    assert len(rows) == 3 and history[-1]["changed"] == {name: [RECIPE.to_dict()[name], changes[name]]}
    assert (history[-1]["epoch"], history[-1]["step"]) == (1, 2) and history[-1]["precision"] == changed.precision


def test_schedules_that_stretch(small):
    from cnnlib.train.optimization import Schedule

    for name in ("cosine", "linear", "step", "constant", "exponential", "plateau"):
        longer = Schedule(Recipe(epochs=20, lr=1.0, schedule=name))
        same = all(longer.lr(time) == Schedule(Recipe(epochs=10, lr=1.0, schedule=name)).lr(time) for time in (2.5, 6, 9))
        assert same == ("goes on as it would have" in longer.stretch(10, 10)), name


# what does not fit


def test_labels_and_classes_must_fit(small, tmp_path):
    path = tmp_path / "run.pt"
    next(fit(RECIPE, model=network(), data=small, checkpoint=path))
    turned = tuple(data.ImageSet(part.images, 9 - part.labels, part.classes[::-1], part.name) for part in small)
    with pytest.raises(ValueError, match="run.pt was trained for other classes, or in another order: disc, ring.*the data has dumbbell"):
        next(fit(RECIPE, model=network(), data=turned, checkpoint=path))
    with pytest.raises(ValueError, match="the network has 12 outputs, but there are 10 classes .disc, ring, square, frame, triangle, "):
        next(fit(RECIPE, model=network(12), data=small))
    with pytest.raises(ValueError, match="model_args has num_classes=7, but there are 10 classes"):
        next(fit(Recipe(model="resnet20", model_args={"num_classes": 7}), data=small))


def test_the_head_fits_the_data(small, tmp_path):
    two = tuple(data.ImageSet(part.images[part.labels < 2], part.labels[part.labels < 2], part.classes[:2], "two") for part in small)
    recipe = Recipe(model="resnet20", epochs=1, batch_size=4)
    next(fit(recipe, data=two, checkpoint=tmp_path / "run.pt"))
    state = load_checkpoint(tmp_path / "run.pt")
    assert list(state["model"].values())[-1].shape == (2,) and state["classifier"]["classes"] == ["disc", "ring"]


def test_within_an_epoch_the_images_must_be_as_many(small, tmp_path):
    with pytest.raises(RuntimeError):
        run(RECIPE, small, checkpoint=tmp_path / "run.pt", progress=at_step(6, fail))
    with pytest.raises(ValueError, match="run.pt stands within epoch 2 of 4 steps, and now there are 2"):
        run(RECIPE, (small[0].first(32), small[1]), checkpoint=tmp_path / "run.pt")


def test_a_checkpoint_of_the_first_edition_goes_on(small, tmp_path):
    path = tmp_path / "run.pt"
    run(Recipe.from_dict({**RECIPE.to_dict(), "epochs": 2}), small, checkpoint=path)
    whole = run(RECIPE, small, checkpoint=tmp_path / "other.pt", allow=["epochs"])
    state = load_checkpoint(path)
    state["recipe"] = {key: value for key, value in state["recipe"].items() if key != "weights"}
    kept = {key: state[key] for key in ("recipe", "epoch", "rows", "random", "model", "optimizer", "schedule", "scaler", "average")}
    save_checkpoint(path, kept)
    best_path(path).unlink()
    rows, _ = run(RECIPE, small, checkpoint=path, allow=["epochs"])
    assert [row["epoch"] for row in rows] == [1, 2, 3] and len(whole[0]) == 3
    assert load_checkpoint(path)["history"][0]["epoch"] == 2
