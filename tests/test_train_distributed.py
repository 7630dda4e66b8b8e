"""Two and three processes do what one would: any starter, any network, any number of images; and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnlib import create_model, data, list_models
from cnnlib.data import seed_of
from cnnlib.registry import find_variant
from cnnlib.train import Recipe, distributed
from cnnlib.train.loop import make_batches
from cnnlib.train.optimization import Schedule, make_optimizer, total_loss
from zoo import size_of

SMALL = [name for name in list_models() if find_variant(name).input_size[1] == 32]
CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=12, train_images=24, lr=2e-3, momentum=0.9, weight_decay=1e-3, crop=2, flip=True,
                schedule="constant")
STARTER = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_train_distributed
test_train_distributed.serve()
"""


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


class Starter:
    """A process that has imported what the tests need, once, and is copied (`os.fork`) wherever a scheduler starts one."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-c", STARTER, os.path.dirname(__file__)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def __call__(self, task, options, processes, seconds=500, **environment):
        """Start processes as a scheduler does, with nothing but RANK, WORLD_SIZE and MASTER_*; (status, output) of each.

        Once more where another process of the machine has taken the port in between.
        """
        for _ in range(3):
            shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **environment}
            self.process.stdin.write(json.dumps([task, options, processes, seconds, shared]) + "\n")
            self.process.stdin.flush()
            ended = json.loads(self.process.stdout.readline())
            if not any(status and "address already in use" in output.lower() for status, output in ended):
                break
        return ended


@pytest.fixture(scope="module")
def start():
    starter = Starter()
    yield starter
    starter.process.stdin.close()
    starter.process.wait(60)


def serve():
    """In the starter: each line names what to start; the answer is the status and the output of each process."""
    assert len(os.listdir("/proc/self/task")) == 1, "a process with several threads cannot be copied"
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    for line in sys.stdin:
        task, options, processes, seconds, environment = json.loads(line)
        logs, running = [tempfile.TemporaryFile() for _ in range(processes)], {}
        for rank, log in enumerate(logs):
            if not (process := os.fork()):
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                os.environ.update(environment, RANK=str(rank))
                be_one(task, options)
            running[process] = rank
        ended, end = [None] * processes, time.monotonic() + seconds
        while running and time.monotonic() < end:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process:
                ended[running.pop(process)] = os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        for process in running:  # these hang
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        texts = []
        for log in logs:
            log.seek(0)
            texts.append(log.read().decode(errors="replace"))
        print(json.dumps(list(zip(ended, texts))), file=answers)


def be_one(task, options):
    """A process ends as it would by itself; never returns."""
    status = 1
    try:
        work(task, options)
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def work(task, options):
    """What a process of the tests does."""
    with distributed.joined():
        TASKS[task](options)


def train_each(options):
    from cnnlib.train import fit

    torch.manual_seed(options.get("disturb", 0) + distributed.rank())
    small = images(options["test_images"])
    for name in options["models"]:
        model = make(name)
        rows = list(fit(RECIPE, model=model, data=small, device="cpu"))
        if distributed.rank() == 0:
            torch.save({"model": model.state_dict(), "rows": rows}, os.path.join(options["folder"], f"{name}.pt"))


def images(test_images):
    return data.shapes(24, max(test_images, 10))[0], data.shapes(24, max(test_images, 10))[1].first(test_images)


def make(name):
    torch.manual_seed(1)
    return create_model(name, in_channels=3)


def by_hand(name, processes, test_images, tested):
    """The run in one process, with code of its own: each process's part forward by itself, gradients averaged.

    Returns its state and row; the row's test is of the state `tested`, for a deep network after one step amplifies rounding.
    """
    model, small = make(name).to(memory_format=torch.channels_last), images(test_images)
    optimizer, rate = make_optimizer(model, RECIPE), Schedule(RECIPE)
    batches, test_batches, _ = make_batches(RECIPE, small, CPU)
    losses, right = [], 0
    statistics = None
    for step, (pixels, labels) in enumerate(batches):
        share = len(labels) // processes
        gradients, before = [], {key: value.clone() for key, value in model.state_dict().items()}
        for rank in range(processes):
            torch.manual_seed(seed_of(RECIPE.seed, 0, step, rank))
            model.load_state_dict(before)
            own = slice(rank * share, (rank + 1) * share)
            optimizer.zero_grad()
            outputs = model.train()(pixels[own].contiguous(memory_format=torch.channels_last))
            loss = total_loss(outputs, labels[own], RECIPE)
            loss.backward()
            gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
            losses.append(loss.item())
            logits = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            right += (logits.argmax(1) == labels[own]).sum().item()
            if rank == 0:
                statistics = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(statistics)  # those of process 0
        for parameter, parts in zip(model.parameters(), zip(*gradients)):
            known = [part for part in parts if part is not None]
            parameter.grad = sum(known) / processes if known else None
        for group in optimizer.param_groups:
            group["lr"] = rate.lr(0)
        optimizer.step()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(tested)
    model.eval()
    with torch.no_grad():
        logits, labels = map(torch.cat, zip(*[(model(pixels), labels) for pixels, labels in test_batches]))
    return state, {
        "train_loss": sum(losses) / len(losses), "train_accuracy": 100 * right / 24,
        "test_loss": nn.functional.cross_entropy(logits, labels).item(),
        "test_accuracy": 100 * (logits.argmax(1) == labels).float().mean().item()}


def compare(start, names, processes, tmp_path, test_images=11, seconds=500):
    options = {"models": names, "folder": str(tmp_path), "test_images": test_images}
    for status, output in start("train_each", options, processes, seconds):
        assert status == 0, output
    assert_equal_by_hand(names, processes, tmp_path, test_images)


def assert_equal_by_hand(names, processes, tmp_path, test_images):
    wrong = {}
    for name in names:
        found = torch.load(tmp_path / f"{name}.pt")
        state, row = by_hand(name, processes, test_images, found["model"])
        start_state = make(name).state_dict()  # deep networks amplify rounding; a wrong average is off by half or more
        try:
            for key, value in state.items():
                change, error = (value - start_state[key]).float().norm(), (value - found["model"][key]).float().norm()
                assert error <= 0.15 * change + 1e-6, f"{key}: {error:.3g} off after a change of {change:.3g}"
            assert {key: found["rows"][0][key] for key in row} == pytest.approx(row, rel=2e-3, abs=1e-3)
        except AssertionError as error:
            wrong[name] = str(error)[:300]
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_equal_one(start, tmp_path, processes):
    compare(start, ["alexnet_cifar", "fractalnet_cifar", "squeezenet_cifar"], processes, tmp_path)


QUIET = [name for name in SMALL if size_of(name)[0] < 3e6 and size_of(name)[1] < 400]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_equal_one_on_every_small_network(start, tmp_path, processes):
    compare(start, QUIET, processes, tmp_path, seconds=3000)


def test_which_networks_may_skip_parts():
    skipping = {name for name in ("fractalnet_cifar", "fractalnet_cifar_plain", "resnet20", "alexnet_cifar", "googlenet_cifar")
                if distributed.may_skip(create_model(name), (3, 32, 32))}
    assert skipping == {"fractalnet_cifar"}
    assert not distributed.may_skip(create_model("resnet20", drop_path_rate=0.5), (3, 32, 32)), "its parts get a gradient of 0"
    unused = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    unused.extra = nn.Linear(2, 2)
    unused.forward = lambda x: unused[1](unused[0](x))
    assert distributed.may_skip(unused, (3, 2, 2)) and distributed.may_skip(create_model("fractalnet_cifar"), (3, 32, 32))
    drawing, before = Drawing(), torch.get_rng_state()
    assert distributed.may_skip(drawing, (3, 2, 2)) and torch.equal(before, torch.get_rng_state())
    assert distributed.may_skip(Deciding(), (3, 2, 2)), "by values"


class Drawing(nn.Module):
    """Uses all of its parameters this time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 2)

    def forward(self, x):
        torch.rand((), device="cpu")
        return self.layer(x.flatten(1))


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 2)

    def forward(self, x):
        return self.layer(x.flatten(1)) if x.sum() > 0 else x.flatten(1)[:, :2]


# starters


@pytest.mark.parametrize("environment, expected", [
    ({}, None), ({"RANK": "0", "WORLD_SIZE": "1"}, None), ({"WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, None),
    ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1", "LOCAL_RANK": "1"}, "same"),
    ({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
     {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None), ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
])
def test_place_among_processes(environment, expected):
    assert distributed.place(environment) == (environment if expected == "same" else expected)


@pytest.mark.parametrize("environment, message", [
    ({"RANK": "0"}, "the environment has RANK=0, but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
    ({"WORLD_SIZE": "2", "RANK": "1"}, "but not MASTER_ADDR, MASTER_PORT: set all of RANK, WORLD_SIZE"),
    ({"WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "but not RANK"),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "but not MASTER_ADDR, MASTER_PORT"),
    ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK=2 in the environment must be below WORLD_SIZE=2"),
    ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK='x' in the environment must be a whole number"),
])
def test_half_a_place_is_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        distributed.place(environment)


def test_workers_by_affinity(monkeypatch):
    monkeypatch.delenv("CNNLIB_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert distributed.workers() == 6
    monkeypatch.setitem(distributed._here, "processes", 4)
    assert distributed.workers() == 1
    monkeypatch.setitem(distributed._here, "processes", 3)
    assert distributed.workers() == 2
    monkeypatch.setenv("CNNLIB_WORKERS", "0")
    assert distributed.workers() == 0
    monkeypatch.setenv("CNNLIB_WORKERS", "many")
    with pytest.raises(ValueError, match="CNNLIB_WORKERS='many'"):
        distributed.workers()


# together


def many_things(options):
    """One start for several checks."""
    from cnnlib.train import evaluate
    from cnnlib.train.run import Run

    rank, processes = distributed.rank(), distributed.processes()
    assert distributed.any_of(rank == 1) and not distributed.any_of(False)
    assert distributed.summed(torch.tensor([1.0, rank])).tolist() == [processes, sum(range(processes))]
    assert distributed._here == {"rank": rank, "processes": processes}, "found by the names of the hosts"

    log = os.path.join(options["folder"], "turns")
    with distributed.in_turn():
        with open(log, "a") as file:
            file.write(f"{rank} in\n")
        time.sleep(0.3 if rank == 0 else 0)
        with open(log, "a") as file:
            file.write(f"{rank} out\n")
    distributed._barrier()
    lines = open(log).read().split("\n")
    assert lines[:2] == ["0 in", "0 out"], lines

    for count in (1, 2, 501):  # the last batch has one image: some process has none of it
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        torch.manual_seed(0)
        nn.init.normal_(model[1].weight)
        small = data.shapes(20, 501)[0], data.shapes(20, 501)[1].first(count)
        loss, accuracy = evaluate(model, make_batches(Recipe(batch_size=4 * processes), small, CPU)[1])
        mean, std = (values.view(3, 1, 1) for values in small[0].statistics())
        with torch.no_grad():
            logits = model((small[1].images.float() / 255 - mean) / std)
        assert abs(loss - nn.functional.cross_entropy(logits, small[1].labels).item()) < 1e-3 * loss
        assert abs(accuracy - 100 * (logits.argmax(1) == small[1].labels).float().mean().item()) < 1e-3

    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    run = Run(Recipe(), model, CPU, {"image_size": 2})
    run.sums += rank + 1
    assert run.state_dict()["sums"].tolist() == [sum(range(1, processes + 1))] * 3 and run.sums[0] == rank + 1
    run.rows = [{}] * rank
    assert distributed.agree(7) and not distributed.agree(rank) and not distributed.agree(int(rank == 1))
    try:
        run.resume(Path(options["folder"]) / "none.pt", ())
    except ValueError as error:
        assert "different checkpoints" in str(error)
    else:
        raise AssertionError("processes that stand at different places must not go on")


@pytest.mark.parametrize("processes", [2, 3])
def test_metrics_turns_and_uneven_test_sets(start, tmp_path, processes):
    for status, output in start("many_things", {"folder": str(tmp_path)}, processes, HOSTNAME="x"):
        assert status == 0, output


def stopped_then_resumed(options):
    """Process 1 gets a signal; both stop after the same step, and a second start ends like one that was never stopped."""
    from cnnlib.train import fit

    recipe = Recipe.from_dict({**RECIPE.to_dict(), "epochs": 3, "precision": "float32"})
    path = Path(options["folder"]) / "run.pt"

    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Dropout(0.3), nn.Flatten(), nn.Linear(256, 10))

    def act(batches, row):
        for number, batch in enumerate(batches):
            if batches.epoch == 1 and number == 0 and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    try:
        list(fit(recipe, model=network(), data=images(5), device="cpu", checkpoint=path, progress=act))
        raise AssertionError("not stopped")
    except SystemExit as stopped:
        assert stopped.code == 143
    distributed._barrier()
    from cnnlib.train import load_checkpoint

    state = load_checkpoint(path)
    assert (state["epoch"], state["step"]) == (1, 1), (state["epoch"], state["step"])
    distributed._barrier()
    one, two = network(), network()
    cut = list(fit(recipe, model=one, data=images(5), device="cpu", checkpoint=path))
    whole = list(fit(recipe, model=two, data=images(5), device="cpu"))
    for a, b in zip(cut, whole, strict=True):
        a, b = ({key: value for key, value in row.items() if key != "seconds"} for row in (a, b))
        assert all(abs(a[key] - b[key]) <= 1e-5 * abs(b[key]) for key in b), (a, b)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_all_stop_together_and_go_on_exactly(start, tmp_path):
    for status, output in start("stopped_then_resumed", {"folder": str(tmp_path)}, 2):
        assert status == 0, output


def one_fails(options):
    if distributed.rank() == options["who"]:
        raise ValueError("the disk of this process is full")
    distributed.summed(torch.zeros(1))
    distributed.summed(torch.zeros(1))


@pytest.mark.parametrize("who", [0, 1])
def test_a_process_that_fails_ends_the_others_with_its_error(start, who):
    ended = start("one_fails", {"who": who}, 2, seconds=120)
    assert all(status != 0 for status, _ in ended)
    assert "ValueError: the disk of this process is full" in ended[who][1]
    other = ended[1 - who][1]
    assert f"ended with process {who}: the disk of this process is full" in other or "another process ended" in other


TASKS = {function.__name__: function for function in (train_each, many_things, stopped_then_resumed, one_fails)}
