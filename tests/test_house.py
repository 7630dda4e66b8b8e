"""The two commands, the pins, the workflows and the README say the same; nothing names one machine."""

import json
import re
import subprocess
import sys

import notebooks
import pytest
import yaml

ROOT = notebooks.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.M))


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def tracked():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
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
                           timeout=60)
    assert set(re.findall(r"make ([a-z]+)", shown.stdout)) == TARGETS == {
        "help", "book", "serve", "test", "chapters", "pages", "lint", "clean"}


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
    commands = [step["run"].partition("#")[0].strip() for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands and set(commands) <= {"make book", "make test", ".ci/run"}


def test_workflows_test_publish_and_come_back_weekly():
    documents = {path.stem: yaml.safe_load(path.read_text()) for path in WORKFLOWS}
    triggers = {name: document[True] for name, document in documents.items()}  # YAML reads the key `on` as true
    assert {"push", "pull_request"} <= set(triggers["test"])
    assert triggers["book"]["push"]["branches"] == [notebooks.repository()["branch"]]
    assert triggers["weekly"]["schedule"]
    assert any("deploy-pages" in step.get("uses", "") for step in documents["book"]["jobs"]["publish"]["steps"])


def test_continuous_integration_is_a_script_that_runs_make_test():
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111 and "make test" in run.read_text() and "export CI=1" in run.read_text()
    subprocess.run(["bash", "-n", run], check=True, timeout=60)


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
