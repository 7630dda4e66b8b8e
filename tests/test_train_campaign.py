"""Plans with budgets and priorities, a campaign that goes on where it stopped, and a command line that refuses what it cannot do."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cnnlib import create_model, data
from cnnlib.train import Recipe, campaign, experiments, load_checkpoint, save_checkpoint
from cnnlib.train.__main__ import main
from cnnlib.train.campaign import find_plans, jobs_of, seconds_an_epoch, status
from cnnlib.train.experiments import read_plan, run_experiment

PLAN = """
description = "one network, three seeds"
priority = 2
[defaults]
model = "alexnet_cifar"
data = "shapes"
epochs = 2
batch_size = 32
train_images = 64
lr = 0.01
[budgets.cpu]
runs = ["*, seed 0", "*, seed 1"]
[budgets.gpu]
epochs = 5
lr = 0.03
train_images = 0
[runs."plain, seed 0"]
[runs."plain, seed 1"]
seed = 1
[runs."plain, seed 2"]
seed = 2
lr = 0.02
[ensembles."first two"]
members = ["plain, seed 0", "plain, seed 1"]
[ensembles."all"]
members = ["plain, seed 0", "plain, seed 1", "plain, seed 2"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "load_data", lambda recipe: data.shapes(64, 20))
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "seeds.toml").write_text(PLAN)
    return tmp_path


def test_budgets_stand_above_defaults_and_below_a_runs_own(folder):
    path = folder / "experiments" / "seeds.toml"
    cpu, gpu = read_plan(path), read_plan(path, "gpu")
    assert list(cpu.recipes) == ["plain, seed 0", "plain, seed 1"] and len(gpu.recipes) == 3
    assert cpu.recipes["plain, seed 1"] == Recipe(model="alexnet_cifar", epochs=2, batch_size=32, train_images=64, lr=0.01, seed=1)
    assert gpu.recipes["plain, seed 2"] == Recipe(model="alexnet_cifar", epochs=5, batch_size=32, lr=0.02, seed=2)
    assert gpu.recipes["plain, seed 0"].lr == 0.03
    assert list(cpu.ensembles) == ["first two"] and list(gpu.ensembles) == ["first two", "all"] and cpu.priority == 2
    assert cpu.record.name == "seeds.json" and gpu.record.name == "seeds_gpu.json" and cpu.record.parent == folder / "results"
    assert cpu.checkpoint("x", "work") == Path("work/seeds/x.pt") and gpu.checkpoint("x") == Path("runs/seeds_gpu/x.pt")


@pytest.mark.parametrize("text, message", [
    ("runs = 3", "runs must be a table, not 3"), ("[runs]\na = 1", r"\[runs.a\] must be a table"),
    ("[runs.a]\nepochs = '3'", "run 'a': epochs='3' must be a whole number"),
    ("[runs.a]\nmilestones = [30, 60]", "milestones=.30.0, 60.0. must be fractions of the run"),
    ("[runs.a]\nwarmup_epochs = 20.0", "warmup_epochs=20.0 must not exceed epochs=10"),
    ("[runs.a]\nrecipe = 'modren'", "run 'a': unknown recipe 'modren'"), ("[runs.a]\nmodel_args = 3", "must be a table of arguments"),
    ("[budgets.tpu]\n[runs.a]", "a budget is one of cpu, gpu, not tpu"), ("[budgets.cpu]\nruns = ['b*']\n[runs.a]", "'b.*' fits no run"),
    ("[budgets.cpu]\nruns = 'a'\n[runs.a]", "must be a list of patterns"), ("priority = 'x'\n[runs.a]", "priority='x' must be a number"),
    ("[runs.a]\n[ensembles.b]\nnames = ['a']", "must have members"), ("[runs.a", "plan.toml: "), ("x = 1\n[runs.a]", "found x"),
])
def test_bad_plans_are_named(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ValueError, match=f"plan.toml: .*{message}" if "plan.toml" not in message else message):
        read_plan(tmp_path / "plan.toml")


def test_records_say_what_was_used_and_spent(folder):
    target = run_experiment(folder / "experiments" / "seeds.toml", runs=["plain, seed 0"], work=folder / "runs", log=lambda text: None)
    record = json.loads(target.read_text())
    entry = record["runs"]["plain, seed 0"]
    assert entry["core_seconds"] > 0 and entry["precision"] == "float32" and len(entry["history"]) == 1
    assert {"recipe", "data", "train_images", "test_images", "params", "rows", "hardware"} <= set(entry)
    assert record["description"] == "one network, three seeds" and len(entry["rows"]) == 2
    assert entry["params"] == sum(p.numel() for p in create_model("alexnet_cifar").parameters())


# a campaign


def begin(folder, run, **state):
    """A checkpoint of a run that was cut off."""
    plan = read_plan(folder / "experiments" / "seeds.toml")
    parts = {"recipe": plan.recipes[run].to_dict(), "rows": [], "model": {}, "optimizer": {}, "schedule": {}, "random": {}}
    save_checkpoint(plan.checkpoint(run, folder / "runs"), {**parts, **state})


def test_what_is_left_and_what_it_will_cost(folder):
    (folder / "experiments" / "later.toml").write_text('[runs.other]\nmodel = "resnet20"\ndata = "folder:x"\n')
    plans = find_plans([folder / "experiments"])
    assert [plan.path.stem for plan in plans] == ["seeds", "later"], "by priority, not by name"
    first, second, other = jobs_of(plans, folder / "runs")
    assert [job.state for job in (first, second, other)] == ["waiting"] * 3 and first.left is None
    begin(folder, "plain, seed 0", epoch=1, step=1, steps=2, core_seconds=30.0)
    begin(folder, "plain, seed 1", epoch=0, step=0, steps=2, core_seconds=1.0)
    first, second, other = jobs_of(plans, folder / "runs")
    assert (first.state, first.epochs, first.spent, first.left) == ("begun", 1.5, 30.0, 10.0)
    assert second.state == "waiting" and second.left is None and other.left is None
    text = status([first, second, other], 2)
    assert "1.5 of 2" in text and "0 of 3 runs are recorded" in text and "2 runs of unknown cost" in text

    record = {"runs": {"plain, seed 0": {"recipe": first.recipe.to_dict(), "rows": [{"seconds": 3.0}, {"seconds": 5.0}],
                                         "core_seconds": 20.0, "hardware": {"threads": 2}}}}
    (folder / "results").mkdir()
    (folder / "results" / "seeds.json").write_text(json.dumps(record))
    first, second, _ = jobs_of(plans, folder / "runs")
    assert (first.state, first.spent, first.left) == ("recorded", 20.0, 0.0)
    assert second.left == 20.0, "like the recorded run: ten core-seconds an epoch"
    del record["runs"]["plain, seed 0"]["core_seconds"]
    (folder / "results" / "seeds.json").write_text(json.dumps(record))
    assert jobs_of(plans, folder / "runs")[0].spent == 16.0, "of older records: seconds times threads"
    record["runs"]["plain, seed 0"]["recipe"]["lr"] = 5.0
    (folder / "results" / "seeds.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="with another recipe .lr differ"):
        jobs_of(plans, folder / "runs")


def test_a_probe_scales_to_an_epoch():
    recipe = Recipe(model="squeezenet_cifar", data="shapes", batch_size=8, train_images=800)
    few, many = seconds_an_epoch(recipe), seconds_an_epoch(Recipe.from_dict({**recipe.to_dict(), "train_images": 8000}))
    assert 0 < few < many and many / few == pytest.approx(10, rel=0.9)
    assert seconds_an_epoch(Recipe(data="folder:x")) is None


class Child:
    """A process of a campaign that is only played: it has ended at once."""

    started = []

    def __init__(self, command, env):
        self.returncode = 1 if "plain, seed 1" in command else 0
        Child.started.append((command, env["OMP_NUM_THREADS"]))
        plan, runs = Path(command[3]), command[command.index("--runs") + 1:] if "--runs" in command else []
        target = plan.parent.parent / "results" / f"{plan.stem}.json"
        record = experiments.read_record(target, runs={})
        record["runs"] |= {run: {"recipe": read_plan(plan).recipes[run].to_dict(), "rows": []} for run in runs if not self.returncode}
        experiments.write_record(target, record)

    def poll(self):
        return self.returncode


def test_a_campaign_does_what_is_left_and_names_what_fails(folder, monkeypatch):
    monkeypatch.setattr(campaign.subprocess, "Popen", Child)
    monkeypatch.setattr(campaign.time, "sleep", lambda seconds: None)
    begin(folder, "plain, seed 1", epoch=1, step=1, steps=2, core_seconds=30.0)
    Child.started, lines, plans = [], [], find_plans([folder / "experiments"])
    assert campaign.carry_out(plans, cores=4, threads=2, work=folder / "runs", log=lines.append) == 1
    assert [command[command.index("--runs") + 1] for command, _ in Child.started] == ["plain, seed 1", "plain, seed 0"], "what is begun first"
    assert {threads for _, threads in Child.started} == {"2"} and any("seed 1 FAILED with status 1" in line for line in lines)
    Child.started = []
    assert campaign.carry_out(plans, cores=1, only=["*, seed 0"], work=folder / "runs", log=lines.append) == 0
    assert Child.started == [], "recorded, and the other not asked for"


PROBES = """
[defaults]
model = "alexnet_cifar"
data = "shapes"
epochs = 1
batch_size = 32
train_images = 64
[runs]
"plain, lr 0.01" = { lr = 0.01 }
"plain, lr 0.03" = { lr = 0.03 }
"wide, lr 0.01" = { model_args = { hidden = 64 }, lr = 0.01 }
"wide, lr 0.03" = { model_args = { hidden = 64 }, lr = 0.03 }
"""
PROBED = PROBES.replace("epochs = 1", "epochs = 2").replace("[runs]", '[budgets.cpu]\nprobes = "tries"\n[runs]')


class Trained(Child):
    """A child whose runs end with an accuracy: the larger step size is the better for one network, and equal for the other."""

    def __init__(self, command, **options):
        super().__init__(command, **options)
        plan, [run] = Path(command[3]), command[command.index("--runs") + 1:]
        record = experiments.read_record(target := plan.parent.parent / "results" / f"{plan.stem}.json")
        record["runs"][run]["rows"] = [{"test_accuracy": 60.0 if run == "plain, lr 0.03" else 50.0, "seconds": 1.0}]
        experiments.write_record(target, record)


def test_the_step_size_with_the_best_probe_is_carried_out(folder, monkeypatch):
    for name, text in (("seeds", PROBED), ("tries", PROBES)):
        (folder / "experiments" / f"{name}.toml").write_text(text)
    path = folder / "experiments" / "seeds.toml"
    assert read_plan(path).recipes == {} and len(read_plan(path).waiting) == 4 and len(read_plan(path, "gpu").recipes) == 4
    monkeypatch.setattr(campaign.subprocess, "Popen", Trained)
    monkeypatch.setattr(campaign.time, "sleep", lambda seconds: None)
    Trained.started, lines = [], []
    plans = find_plans([folder / "experiments"])
    assert campaign.carry_out(plans, cores=1, only=["plain, lr 0.01"], work=folder / "runs", log=lines.append) == 0
    assert campaign.carry_out(find_plans([folder / "experiments"]), cores=1, work=folder / "runs", log=lines.append) == 0
    assert lines == ["tries: plain, lr 0.01", "tries: plain, lr 0.03", "seeds: plain, lr 0.03",
                     "tries: wide, lr 0.01", "tries: wide, lr 0.03", "seeds: wide, lr 0.01"], "of equal ones the smaller"
    assert list(read_plan(path).recipes) == ["plain, lr 0.03", "wide, lr 0.01"] and not read_plan(path).waiting
    (folder / "experiments" / "tries.toml").write_text(PROBES.replace('"wide, lr 0.03"', '"wide, lr 0.02"').replace("64 }, lr = 0.03", "64 }, lr = 0.02"))
    with pytest.raises(ValueError, match="seeds.toml: run 'wide, lr 0.03': tries.toml has no probe of alexnet_cifar with lr=0.03"):
        read_plan(path)


def test_ensembles_follow_their_members(folder, monkeypatch):
    monkeypatch.setattr(campaign.subprocess, "Popen", Child)
    monkeypatch.setattr(campaign.time, "sleep", lambda seconds: None)
    text = PLAN.replace('runs = ["*, seed 0", "*, seed 1"]', 'runs = ["*, seed 0", "*, seed 2"]').replace(
        'members = ["plain, seed 0", "plain, seed 1"]', 'members = ["plain, seed 0", "plain, seed 2"]')
    (folder / "experiments" / "seeds.toml").write_text(text)
    Child.started = []
    campaign.carry_out(find_plans([folder / "experiments"]), cores=1, work=folder / "runs", log=lambda text: None)
    assert ["--runs" in command for command, _ in Child.started] == [True, True, False]


@pytest.mark.slow
def test_a_campaign_is_stopped_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    text = PLAN.replace("epochs = 2", "epochs = 30").replace("train_images = 64", "train_images = 1024")
    (tmp_path / "experiments" / "seeds.toml").write_text(text)
    command = [sys.executable, "-m", "cnnlib.train.campaign", str(tmp_path / "experiments"), "--cores", "2", "--budget", "cpu",
               "--work", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(Path(campaign.__file__).parents[2])}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not list(tmp_path.glob("runs/seeds/*0.pt")) and first.poll() is None:
        time.sleep(0.2)
    first.send_signal(signal.SIGTERM)
    assert "stopped; the same command goes on" in first.communicate(timeout=900)[0]
    state = load_checkpoint(tmp_path / "runs" / "seeds" / "plain, seed 0.pt")
    assert 0 < state["epoch"] * 32 + state["step"] < 30 * 32
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "results" / "seeds.json").read_text())
    assert set(record["runs"]) == {"plain, seed 0", "plain, seed 1"} and set(record["ensembles"]) == {"first two"}


def test_command_of_a_campaign(folder, capsys):
    campaign.main([str(folder / "experiments"), "--status", "--budget", "cpu", "--work", str(folder / "runs")])
    assert "0 of 2 runs are recorded" in capsys.readouterr().out
    for arguments, message in ((["nothing.toml"], "there is no file nothing.toml"), (["--cores", "0"], "threads must be 1 to cores"),
                               (["--cores", "2", "--threads", "3"], "threads must be 1 to cores")):
        with pytest.raises(SystemExit, match=message):
            campaign.main(arguments)


# the command line


@pytest.mark.parametrize("arguments, message", [
    (["{plan}", "--epochs", "3"], "--epochs: a file of experiments says this itself; beside it go --runs"),
    (["{plan}", "--checkpoint", "x.pt", "--lr", "1"], "--checkpoint --lr: a file of experiments"),
    (["{plan}", "--runs", "nobody"], "has no run 'nobody'; its runs are 'plain, seed 0', 'plain, seed 1'"),
    (["nothing.toml"], "there is no file nothing.toml"),
    (["alexnet_cifar", "--runs", "a"], "--runs: belongs to a file of experiments, not to 'alexnet_cifar'"),
    (["alexnet_cifar", "--budget", "gpu"], "--budget: belongs to a file"),
    (["alexnet_cifar", "--change", "epochs"], "--change needs --checkpoint"),
    (["alexnet_cifar", "--save-minutes", "3"], "--save-minutes needs --checkpoint"),
    (["alexnet_cifar", "--warmup-epochs", "20"], "warmup_epochs=20.0 must not exceed epochs=10"),
    (["alexnet_cifar", "--milestones", "30", "60"], "must be fractions of the run, between 0 and 1: epoch 30 of 90 is 0.333"),
    (["alexnet_cifar", "--device", "cuda:7"], "--device cuda:7: there is no such device here"),
    (["alexnet_cifar", "--device", "gpu"], "--device gpu: there is no such device here"),
    (["alexnet_cifar", "--set", "dropuot=0.1"], "neither a recipe nor alexnet_cifar has 'dropuot'; the network has .*dropout"),
    (["alexnet_cifar", "--set", "dropout"], "--set dropout: expected KEY=VALUE"),
    (["alexnet_cifar", "--set", "epochs=many"], "epochs='many' must be a whole number"),
    (["alexnet_cifar", "--weights", "IMAGENET1K_V9"], "no published weights for .alexnet_cifar."),
    (["alexnt", "--epochs", "1"], "unknown model 'alexnt'; did you mean"),
])
def test_the_command_line_refuses_by_name(folder, arguments, message):
    arguments = [argument.format(plan=folder / "experiments" / "seeds.toml") for argument in arguments]
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(arguments)


def ran(monkeypatch, arguments):
    """The recipe and the options with which a command line trains."""
    from cnnlib.train import __main__ as command

    seen = {}
    monkeypatch.setattr(command, "fit", lambda recipe, **options: seen.update(recipe=recipe, **options) or iter(()))
    main(arguments)
    return seen


def test_the_command_line_sets_what_it_is_told(monkeypatch, tmp_path):
    seen = ran(monkeypatch, ["resnet18_cifar", "--recipe", "speedrun_cpu", "--set", "widths=[8,8,8,8]", "--set", "lr=0.3",
                             "--set", "model_args.shortcut=B", "--device", "cpu", "--epochs", "3", "--min-area", "1.0",
                             "--checkpoint", "x.pt", "--change", "epochs", "data", "--save-minutes", "2", "--weights", "y.pt"])
    recipe = seen["recipe"]
    assert recipe.model_args == {"depths": [1, 1, 1, 1], "widths": [8, 8, 8, 8], "shortcut": "B"}
    assert (recipe.lr, recipe.epochs, recipe.min_area, recipe.weights, recipe.precision) == (0.3, 3, 1.0, "y.pt", "auto")
    assert seen["device"] == torch.device("cpu") and seen["allow"] == ["epochs", "data"] and seen["save_minutes"] == 2.0
    plain = ran(monkeypatch, ["alexnet_cifar", "--set", "dropout=0.0"])
    assert plain["recipe"] == Recipe(model="alexnet_cifar", model_args={"dropout": 0.0}) and plain["device"] is None
    assert plain["checkpoint"] is None and plain["save_minutes"] == 10 and plain["allow"] == ()


def test_weights_of_a_checkpoint_start_a_run(tmp_path):
    from cnnlib.train import fit
    from cnnlib.train.run import make_model, start_from

    small = data.shapes(32, 10)
    list(fit(Recipe(model="squeezenet_cifar", epochs=1, batch_size=16), data=small, checkpoint=tmp_path / "a.pt"))
    state = load_checkpoint(tmp_path / "a.pt")
    recipe = Recipe(model="squeezenet_cifar", weights=str(tmp_path / "a.pt"))
    same = make_model(recipe, small[0].classes)
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), state["model"].values(), strict=True))
    for classes in (["a", "b", "c"], [f"new {k}" for k in range(10)]):
        torch.manual_seed(3)
        other = make_model(Recipe(model="squeezenet_cifar"), classes)
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        anew = start_from(other, recipe, classes)
        assert anew and all(torch.equal(tensor, before[name] if name in anew else state["model"][name])
                            for name, tensor in other.state_dict().items())
        assert len(anew) <= 2
    with pytest.raises(ValueError, match="a.pt' are of another network than 'resnet20'"):
        make_model(Recipe(model="resnet20", weights=str(tmp_path / "a.pt")), small[0].classes)


def test_a_stopped_command_says_how_to_go_on(monkeypatch, capsys):
    from cnnlib.train import __main__ as command

    def interrupted(recipe, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "fit", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["alexnet_cifar", "--checkpoint", "run.pt"])
    assert stopped.value.code == 130 and "the same command goes on from run.pt" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("First steps", "tune lr by factors of 3", "--change epochs", "peak step size", "auto takes bfloat16",
                  "python -m cnnlib.train.campaign", "save within an epoch", "(default: 0.5 0.75)"):
        assert words in shown, words
