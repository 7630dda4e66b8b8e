"""`pytest --nbval chapters/`: the code of the hidden solutions runs after its chapter, in the same kernel.

Each chapter has a kernel of its own, a copy of one process that has imported the libraries (`tools/kernels.py`).

A kernel gets time to start, however busy the machine; one that does not start, dies or does not answer is killed, and
its cells fail at once. (nbval by itself waits a minute, and then asks the dead kernel to shut down, for ever.)
"""

import time
from collections import defaultdict
from queue import Empty

import nbformat
import pytest
from kernels import Nursery, possible
from lint_chapters import Chapter
from nbval import kernel as nbval_kernel
from nbval.plugin import IPyNbCell, IPyNbFile

collect_ignore_glob = ["_*.ipynb"]

START, CELL, OUTPUT = 300.0, 500.0, 500.0  # seconds: until a kernel answers, for one cell, between two of its outputs
NURSERY = Nursery() if possible() else None
NBVAL_DEFAULTS = {"nbval_kernel_startup_timeout": (60, START), "nbval_cell_timeout": (2000, CELL)}


def pytest_configure(config):
    for option, (theirs, ours) in NBVAL_DEFAULTS.items():
        if getattr(config.option, option, None) == theirs:
            setattr(config.option, option, ours)


def pytest_unconfigure():
    if NURSERY:
        NURSERY.close()


class ChapterKernel(nbval_kernel.RunningKernel):
    """nbval's kernel; `RuntimeError` where it died or did not start within `startup_timeout` seconds."""

    def __init__(self, kernel_name, cwd=None, startup_timeout=START):
        self.km = nbval_kernel.KernelManager(
            kernel_name=kernel_name, kernel_spec_manager=nbval_kernel.NbvalKernelspecManager(), shutdown_wait_time=1)
        if NURSERY:
            self.km.provisioner = NURSERY.provisioner(self.km)
        with open(nbval_kernel.os.devnull, "w") as nowhere:
            self.km.start_kernel(stderr=nowhere, cwd=cwd)
        self.kc = self.km.client()
        try:
            self.kc.start_channels()
            self.kc.wait_for_ready(timeout=startup_timeout)
            self.await_reply(self.kc.kernel_info(), timeout=startup_timeout)
        except BaseException:  # a test's time limit and an interrupt too: no process stays behind
            self.stop()
            raise

    def get_message(self, stream, timeout=None):
        """One message; `Empty` after `timeout` seconds, `RuntimeError` as soon as the kernel is dead."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return super().get_message(stream, timeout=max(0, min(1, end - time.monotonic())))
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died") from None
                if time.monotonic() >= end:
                    raise


class ChapterFile(IPyNbFile):
    """A notebook's cells, outputs compared, then the solutions of its exercises, outputs ignored."""

    def setup(self):
        options = self.config.option
        name = options.nbval_kernel_name or self.nb.metadata.get("kernelspec", {}).get("name", "python3")
        self.kernel = ChapterKernel(name, str(self.path.parent), options.nbval_kernel_startup_timeout)
        self.setup_sanitize_files()
        execute = self.kernel.kc.execute  # with history, as notebooks run: else IPython overlooks a closing semicolon
        self.kernel.kc.execute = lambda code, **options: execute(code, **{**options, "store_history": True})

    def collect(self):
        for cell in [*super().collect(), *self._solutions()]:
            cell.output_timeout = OUTPUT
            yield cell

    def _solutions(self):
        for number, code in enumerate(Chapter(self.path, self.nb).solutions(), 1):
            if code:
                yield IPyNbCell.from_parent(
                    self, name=f"Solution {number}", cell_num=number, cell=nbformat.v4.new_code_cell(code),
                    options=defaultdict(bool),
                )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    collectors = yield
    return [ChapterFile.from_parent(parent, path=file_path) if isinstance(collector, IPyNbFile) else collector
            for collector in collectors]
