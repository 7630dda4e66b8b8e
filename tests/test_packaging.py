"""A built wheel beside an existing torch: it brings what it reads, needs no clone, and its metadata is true."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import bounds
import notebooks
import pytest
import yaml
from packaging.requirements import Requirement
from test_adding import Copy
from test_colab import colab  # noqa: F401 (a fixture)
from test_floors import FILES, imports

import cnnlib

ROOT = notebooks.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {Requirement(line).name for line in PROJECT["dependencies"]}
OPTIONAL = {Requirement(line).name for lines in PROJECT["optional-dependencies"].values() for line in lines}
DISTRIBUTION = {"PIL": "pillow", "pillow_heif": "pillow-heif"}  # where the name that is imported is another
FRONT_ENDS = {"IPython", "matplotlib_inline"}  # there where a notebook is; all uses ask first
OFFLINE = """
import importlib.metadata, pathlib, cnnlib
from cnnlib.data import book_file, load_result, load_table
from cnnlib.widgets import ArchitectureMap, ReceptiveFieldExplorer

assert importlib.metadata.version("cnnlib") == cnnlib.__version__
assert book_file("zoo.csv").parent == pathlib.Path(cnnlib.__file__).with_name("book")
assert len(load_table("zoo")) == len(cnnlib.list_models()) and load_result("benchmark")["runs"]
assert len(ArchitectureMap().data["sources"]) == 4
assert ReceptiveFieldExplorer("alexnet").data
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    book = Copy(folder / "a book")  # a name with a space
    book.run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
             "--wheel-dir", folder, ".")
    file, = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_and_what_it_reads(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "cnnlib").rglob("*")
               if path.is_file() and "__pycache__" not in path.parts}
    data = {f"cnnlib/book/{path.relative_to(ROOT / 'data').as_posix()}"
            for pattern in ("README.md", "*.csv", "published/*.csv", "results/*.json", "images/*") for path in (ROOT / "data").glob(pattern)}
    assert {name for name in names if ".dist-info/" not in name} == package | data
    assert wheel.stat().st_size < 2_000_000


def test_the_wheel_beside_an_existing_torch_runs_the_examples(wheel, colab, tmp_path):  # noqa: F811
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CNNLIB_DATA")}
    run = {"cwd": tmp_path, "env": environment, "check": True, "timeout": 300}
    subprocess.run([colab, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], **run)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    for code in (*examples, OFFLINE):
        subprocess.run([colab, "-c", code], **run)
    subprocess.run([colab, "-m", "cnnlib.train", "--help"], stdout=subprocess.DEVNULL, **run)


def test_everything_that_is_imported_is_declared_and_everything_required_is_imported():
    at_once, at_all = ({DISTRIBUTION.get(name, name) for name in {dotted.split(".")[0] for path in FILES for dotted in imports(path, top=top)}
                        - sys.stdlib_module_names - {"cnnlib"} - FRONT_ENDS} for top in (True, False))
    assert at_once <= REQUIRED <= at_all <= REQUIRED | OPTIONAL


def test_lower_bounds_alone_so_that_nothing_is_replaced():
    for line in PROJECT["dependencies"]:
        assert {clause.operator for clause in Requirement(line).specifier} == {">="}, line


def test_version_and_addresses_are_the_same_everywhere():
    tree = ast.parse(Path(cnnlib.__file__).read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.Assign) and node.targets[0].id == "__version__" for node in tree.body)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cnnlib.__version__ and citation["license"] == PROJECT["license"]
    newest = re.search(r"^## (\S+?),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert newest == cnnlib.__version__
    address = notebooks.repository()["url"]
    assert citation["repository-code"] == address and all(url.startswith(address) for url in PROJECT["urls"].values())
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    weekly = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text())["jobs"]["chapters"]["strategy"]["matrix"]
    assert sorted(named) == sorted(weekly["python"]) and PROJECT["requires-python"] == f">={min(named)}"


def test_lowest_versions_are_pinned_and_newest_are_not():
    lowest, newest = map(bounds.requirements, ("lowest", "newest"))
    assert len(lowest) == len(newest) and set(PROJECT["dependencies"]) <= set(newest)
    for low, high in zip(lowest, newest, strict=True):
        (pin,), version = Requirement(low).specifier, Requirement(low).specifier
        assert pin.operator == "==" and Requirement(high).specifier.contains(pin.version), (low, version)
    with pytest.raises(ValueError, match="'oldest'; choose 'lowest'"):
        bounds.requirements("oldest")
