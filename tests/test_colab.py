"""A rehearsal of Colab: a chapter, alone in an empty folder, in an environment that has everything but cnnlib.

Colab's environment is played by a virtual environment whose packages are links to this environment's, with a stub
`google.colab`; the repository's public address leads to a local copy, by git's own setting. pip may ask nobody: so
the chapter also proves that installing the package fetches nothing that Colab has.

With COLAB_PYTHON, the path of a Python that has Colab's own versions (in 2026: Python 3.13, torch 2.11, numpy 2.1.3, ipywidgets 7.7.1,
IPython 7.34) with nbclient, anywidget and setuptools, its packages are the ones that are linked; then `pytest -m slow` runs more chapters there.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import notebooks
import pytest

THEIRS = os.environ.get("COLAB_PYTHON", sys.executable)
KEPT = ("torch", "torchvision", "numpy")
STUB = """
import types

enabled = []
_widgets = types.SimpleNamespace(_installed_url="https://example.org/manager.js")


def enable_custom_widget_manager():
    enabled.append(True)
"""  # anywidget calls it, once, before it shows an explorer
EXPLORER = """
from google.colab import output
from cnnlib.widgets import ConvolutionArithmetic

bundle, metadata = ConvolutionArithmetic(227, 11, 4)._repr_mimebundle_()
assert output.enabled == [True], "anywidget did not ask Colab for its widget manager, once"
assert "custom_widget_manager" in str(metadata), metadata
"""
RUN = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.execute(notebook, timeout=600, startup_timeout=500)
nbformat.write(notebook, sys.argv[1])
"""


def git(*arguments, cwd):
    return subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True, timeout=500).stdout


def asked(python, code):
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, timeout=500).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A local repository that holds the book as it is in the working tree."""
    copy = tmp_path_factory.mktemp("repository") / "book"
    for name in git("ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=notebooks.ROOT).split("\0"):
        if name and (notebooks.ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(notebooks.ROOT / name, copy / name)
    git("init", "--quiet", "--initial-branch", notebooks.repository()["branch"], cwd=copy)
    git("add", "--all", cwd=copy)
    git("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--message", "book", cwd=copy)
    return copy


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The Python of an environment with all of this one's packages but cnnlib, and with a stub `google.colab`."""
    folder = tmp_path_factory.mktemp("colab")
    packages = folder / "packages"
    packages.mkdir()
    purelib = Path(sysconfig.get_path("purelib") if sys.executable == THEIRS else asked(THEIRS, "import sysconfig; print(sysconfig.get_path('purelib'))"))
    for entry in purelib.iterdir():
        if "cnnlib" not in entry.name and entry.name != "google":
            (packages / entry.name).symlink_to(entry)
    stub = packages / "google" / "colab"  # in a folder of its own, never in this environment's `google`, which protobuf brings
    stub.mkdir(parents=True)
    for entry in (purelib / "google").glob("*"):
        (packages / "google" / entry.name).symlink_to(entry)
    (stub / "__init__.py").write_text("from google.colab import output\n")  # there from the start of a kernel
    (stub / "output.py").write_text(STUB)

    subprocess.run([THEIRS, "-m", "venv", "--without-pip", folder / "env"], check=True, timeout=500)
    python = folder / "env" / "bin" / "python"
    own = asked(python, "import sysconfig; print(sysconfig.get_path('purelib'))")
    Path(own, "colab.pth").write_text(f"{packages}\n")
    return python


def versions(python, folder, environment):
    """Version and place of the packages that must stay as they are."""
    code = ("import importlib.metadata as m, json; "
            f"print(json.dumps([[name, m.version(name), str(m.distribution(name)._path)] for name in {KEPT!r}]))")
    run = subprocess.run([python, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True,
                         timeout=500)
    return json.loads(run.stdout)


def environment_of(colab, repository):
    """What a kernel finds there: its own programs first, a copy of the repository, no package index."""
    return {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CNNLIB_DATA")},
        "PATH": f"{colab.parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": notebooks.repository()["url"],
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as `--no-build-isolation`: setuptools is here already
        "OMP_NUM_THREADS": "1",
    }


def test_a_chapter_runs_in_colab(colab, repository, tmp_path):
    chapter = notebooks.CHAPTERS / "08_better_residual_blocks.ipynb"  # reads records and trains nothing
    shutil.copy(chapter, tmp_path)
    environment = environment_of(colab, repository)
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 500}
    assert subprocess.run([colab, "-c", "import cnnlib"], **run).returncode != 0
    before = versions(colab, tmp_path, environment)

    done = subprocess.run([colab, "-c", RUN, chapter.name], **run)
    assert done.returncode == 0, done.stderr

    book = tmp_path / notebooks.repository()["url"].rpartition("/")[2]
    assert (book / "data").is_dir()
    setup = next(cell for cell in notebooks.read(tmp_path / chapter.name).cells if notebooks.is_setup_cell(cell))
    assert f"the book and its data are in {book}" in setup.outputs[0].text
    assert versions(colab, tmp_path, environment) == before
    place = subprocess.run([colab, "-c", "import cnnlib; print(cnnlib.__file__)"], **run).stdout
    assert place.startswith(str(colab.parents[1])), "the chapter used a package that the set-up cell did not install"


def test_explorers_ask_colab_for_its_widget_manager(colab, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(notebooks.ROOT)}
    done = subprocess.run([colab, "-c", EXPLORER], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif("COLAB_PYTHON" not in os.environ, reason="the tests of chapters run them with this environment's packages")
@pytest.mark.parametrize("chapter", notebooks.chapter_files(), ids=lambda path: path.stem)
def test_chapters_run_with_colabs_versions(colab, repository, tmp_path, chapter):
    shutil.copy(chapter, tmp_path)
    environment = environment_of(colab, repository)
    done = subprocess.run([colab, "-c", RUN, chapter.name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-5000:]
