"""The two commands, the pins, the workflows and the README say the same; nothing names one machine."""

import json
import os
import re
import shutil
import subprocess
import sys

import faults
import notebooks
import pytest
import yaml

ROOT = notebooks.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.M))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def tracked():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=300).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).is_file()]


def test_make_commands_of_the_readme_exist():
    commands = set(re.findall(r"\bmake ([a-z]+)\b", text("README.md")))
    assert {"book", "test", "serve", "chapters", "lint"} <= commands <= TARGETS


def test_files_that_the_readme_names_exist():
    named = re.findall(r"\]\(([^)#:]+)\)", text("README.md")) + re.findall(r"`([\w./-]+/)`", text("README.md"))
    assert named and all((ROOT / name).exists() for name in named), named


def test_python_of_the_readme_runs():
    [code] = re.findall(r"```python\n(.*?)```", text("README.md"), re.S)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_help_lists_every_target():
    shown = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, check=True, capture_output=True, text=True,
                           timeout=300)
    assert set(re.findall(r"make ([a-z]+)", shown.stdout)) == TARGETS == {
        "help", "book", "serve", "test", "chapters", "pages", "slides", "pdf", "lint", "bounds", "clean"}


TYPES = ROOT / "_build" / "mypy"  # what the type checker remembers of PyTorch and of files that have not changed


@pytest.mark.parametrize("tool", [("ruff", "check", "--no-cache", "."), ("mypy", "--cache-dir", TYPES)], ids=lambda tool: tool[0])
def test_linter_and_type_checker_find_nothing(tool):
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


def test_linter_and_type_checker_would_find_it(tmp_path):
    """The configuration is lenient, and still sees a name that is not there, a call that does not fit, a long line."""
    wrong = tmp_path / "cnnlib" / "registry.py"
    wrong.parent.mkdir()
    wrong.write_text("def f(a: int) -> int:\n    return b\n\n\nf(1, 2)\n# " + 120 * "x" + "\n")
    config = ROOT / "pyproject.toml"
    ruff = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--config", config, "."], cwd=tmp_path,
                          capture_output=True, text=True, timeout=300)
    assert "F821" in ruff.stdout and "E501" in ruff.stdout, ruff.stdout + ruff.stderr
    mypy = subprocess.run([sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", f"{TYPES}-wrong", wrong],
                          cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert "[name-defined]" in mypy.stdout and "[call-arg]" in mypy.stdout, mypy.stdout + mypy.stderr


def test_every_test_has_a_limit_of_time(request, pytestconfig):
    timeout = pytest.importorskip("pytest_timeout")
    assert 0 < timeout._get_item_settings(request.node).timeout <= 600
    assert pytestconfig.getini("faulthandler_exit_on_timeout") and float(pytestconfig.getini("faulthandler_timeout")) > 3600


def test_pins_are_exact_and_sorted_once():
    lines = [line for line in text("requirements.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*", line) for line in lines)
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names))


def test_pins_meet_the_bounds_of_the_package():
    packaging = pytest.importorskip("packaging.requirements")
    tomllib = pytest.importorskip("tomllib")
    pins = dict(line.split("==") for line in text("requirements.txt").splitlines() if "==" in line)
    for bound in map(packaging.Requirement, tomllib.loads(text("pyproject.toml"))["project"]["dependencies"]):
        assert bound.specifier.contains(pins[bound.name]), bound
        assert {clause.operator for clause in bound.specifier} == {">="}, "an upper bound could replace Colab's packages"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_calls_the_make_commands(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = [step["run"].partition("#")[0].strip() for job in jobs.values() for step in job.get("steps", []) if "run" in step]
    commands = [command.partition(" VERSIONS=")[0] for command in commands]
    assert commands and set(commands) <= {"make book", "make test", "make bounds", ".ci/run"}


def test_workflows_test_publish_and_come_back_weekly():
    documents = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    triggers = {name: document[True] for name, document in documents.items()}  # YAML reads the key `on` as true
    assert {"push", "pull_request"} <= set(triggers["test"])
    assert triggers["book"]["push"]["branches"] == [notebooks.repository()["branch"]]
    assert triggers["weekly"]["schedule"]
    assert documents["weekly"]["jobs"]["bounds"]["strategy"]["matrix"]["versions"] == ["lowest", "newest"]
    jobs = documents["book"]["jobs"]
    assert jobs["publish"]["needs"] == "test" and jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert "workflow_call" in triggers["test"], "publishing waits for the tests"
    assert triggers["test"]["push"]["branches-ignore"] == triggers["book"]["push"]["branches"], "which then run once"
    assert any("deploy-pages" in step.get("uses", "") for step in documents["book"]["jobs"]["publish"]["steps"])


def test_continuous_integration_is_a_script_that_runs_make_test():
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111 and "make test" in run.read_text() and "export CI=1" in run.read_text()
    subprocess.run(["bash", "-n", run], check=True, timeout=300)


def test_importing_the_package_loads_the_networks_only():
    code = "import sys, json, cnnlib; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                                       timeout=300).stdout)
    assert "torch" in loaded
    assert not {"matplotlib", "pandas", "torchvision", "ipywidgets", "anywidget", "IPython"} & set(loaded)


def test_nothing_names_one_machine_or_a_package_registry():
    places = "|".join(["work", "root", "home", "opt", "Users"])
    hosts = "|".join(re.escape(".".join(parts)) for parts in [
        ("pypi", "org"), ("files", "pythonhosted", "org"), ("download", "pytorch", "org"), ("registry", "npmjs", "org")])
    pattern = re.compile(rf"(?<![\w.~$/}}])/(?:{places})/\w|{hosts}")
    found = {}
    for path in tracked():
        try:
            match = pattern.search(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
        if match and path.name not in ("lint_chapters.py", "test_chapters.py"):  # they name such paths to refuse them
            found[path.relative_to(ROOT).as_posix()] = match[0]
    assert not found


PYTHON_STAND_IN = """#!/bin/sh
echo "$@" >> log
case "$*" in
  "-m venv"*) [ -e without-venv ] && { mkdir -p .venv/bin; exit 1; }
    rm -rf .venv; mkdir -p .venv/bin; cp python .venv/bin/python;;
esac
"""


@pytest.fixture
def set_up(tmp_path):
    """A folder with a space in its name, the Makefile in it, and a stand-in for Python that notes what it is asked."""
    folder = tmp_path / "a book"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "python").write_text(PYTHON_STAND_IN)
    (folder / "python").chmod(0o755)

    def make():
        done = subprocess.run(["make", ".venv/.installed", "PYTHON=./python"], cwd=folder, capture_output=True, text=True,
                              timeout=300)
        return done, (folder / "log").read_text()

    make.folder = folder
    return make


def test_set_up_makes_the_environment_once(set_up):
    done, asked = set_up()
    assert done.returncode == 0 and asked.count("-m venv --clear .venv") == 1, done.stderr
    assert "--requirement requirements.txt" in asked and "--no-deps --no-build-isolation --editable ." in asked
    (set_up.folder / "requirements.txt").touch()
    os.utime(set_up.folder / ".venv" / ".installed", (0, 0))
    done, asked = set_up()
    assert asked.count("-m venv") == 1 and asked.count("--requirement") == 2, "what is sound is kept"


def test_set_up_mends_a_half_made_environment(set_up):
    half = set_up.folder / ".venv" / "bin" / "python"
    half.parent.mkdir(parents=True)
    half.write_text("#!/bin/sh\necho No module named pip >&2\nexit 1\n")
    half.chmod(0o755)
    done, asked = set_up()
    assert done.returncode == 0 and "-m venv --clear .venv" in asked and "--requirement requirements.txt" in asked, done.stderr


def test_set_up_names_the_package_that_is_missing_and_leaves_nothing_half_made(set_up):
    (set_up.folder / "without-venv").touch()
    done, asked = set_up()
    assert done.returncode != 0 and "apt-get install python3-venv" in done.stdout
    assert not (set_up.folder / ".venv").exists() and "--requirement" not in asked
    assert "python3-venv" in text("README.md")


def test_deliberate_faults_fit_the_code():
    """Each stands ready to be put in: the text that it changes is there, once."""
    lists = sorted((ROOT / "tools" / "faults").glob("*.toml"))
    assert sum(len(faults.read_faults(path)) for path in lists) >= 200
