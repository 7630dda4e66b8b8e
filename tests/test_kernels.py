"""Copies of one process as kernels: each as fresh as one that is started, none knows another, none outlives its owner."""

import os
import signal
import time
from pathlib import Path

import kernels
import pytest
from jupyter_client import KernelManager

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
WAIT = 300.0
STATE = """
import numpy as np, random, sys, torch
print(sorted(name for name in globals() if not name.startswith("_")))
print(sys.path, sys.flags.safe_path, sys.stdin.fileno(), __name__)
print(os.getcwd(), os.environ["OURS"], os.getpgid(0) == os.getpid(), "CNNLIB_THEIRS" in os.environ)
print(random.random(), np.random.rand(), torch.rand(()).item())
"""


@pytest.fixture(scope="module")
def nursery():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as `make test` sets it
        nursery = kernels.Nursery()
        yield nursery
        nursery.close()


@pytest.fixture
def kernel(nursery, tmp_path):
    """`run, manager = kernel()`: a copy; `run(code)` returns what the code prints."""
    opened = []

    def start():
        manager = KernelManager(kernel_name="python3")
        manager.provisioner = nursery.provisioner(manager)
        manager.start_kernel(cwd=tmp_path, env={**os.environ, "OURS": str(len(opened))})
        client = manager.client()
        opened.append((manager, client))
        client.start_channels()
        client.wait_for_ready(timeout=WAIT)

        def run(code):
            said = []
            reply = client.execute_interactive(code, timeout=WAIT, output_hook=said.append)
            assert reply["content"]["status"] == "ok", reply["content"]
            return "".join(one["content"]["text"] for one in said if one["msg_type"] == "stream")

        return run, manager

    yield start
    for manager, client in opened:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)


def ended(process, seconds=60):
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    return process.poll() is not None


def test_each_is_as_fresh_as_one_that_is_started(kernel, tmp_path):
    first, _ = kernel()
    first('import os, random, sys; os.environ["CNNLIB_THEIRS"] = "1"; sys.path.append("theirs"); os.chdir("/"); x = 1')
    second, _ = kernel()
    assert second('import sys; print("torch" in sys.modules and "cnnlib.widgets" in sys.modules)') == "True\n"
    second("import os")
    names, paths, place, numbers = second(STATE).splitlines()
    assert names == str(sorted(["In", "Out", "exit", "get_ipython", "np", "open", "os", "quit", "random", "sys", "torch"]))
    assert "theirs" not in paths and str(Path(kernels.__file__).parent) not in paths and "''" in paths and paths.endswith("False 0 __main__")
    assert place == f"{tmp_path} 1 True False"
    assert not set(numbers.split()) & set(first(STATE.replace("OURS", "CNNLIB_THEIRS")).splitlines()[3].split())


def test_explorers_and_figures_work(kernel):
    run, _ = kernel()
    assert run("import matplotlib.pyplot as plt; print(plt.get_backend())").strip().endswith("inline")
    run("from cnnlib.widgets import ConvolutionArithmetic; ConvolutionArithmetic(227, 11, 4)")
    assert "jupyter.widget" in run("print(*get_ipython().kernel.comm_manager.targets)")


def test_a_kernel_that_dies_is_noticed_and_the_next_one_starts(kernel):
    _, manager = kernel()
    process = manager.provisioner.process
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(60) == 1 and not manager.is_alive()
    assert kernel()[0]("print(1 + 1)") == "2\n"


def test_none_outlives_the_nursery_and_a_broken_nursery_says_so(kernel, nursery, monkeypatch):
    _, manager = kernel()
    nursery.close()
    assert ended(manager.provisioner.process)
    monkeypatch.setattr(kernels.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="died or takes too long"):
        nursery.launch(["-f", "nowhere"], None, {})


def test_after_a_refusal_kernels_start_as_ever(monkeypatch, tmp_path):
    """As without OMP_NUM_THREADS=1, where NumPy's import may start threads: a copy of them would hang."""
    served = tmp_path / "served.py"
    served.write_text("import sys, threading, time\n"
                      "threading.Thread(target=time.sleep, args=[600], daemon=True).start()\n"
                      f"sys.path.insert(0, {os.path.dirname(kernels.__file__)!r})\n"
                      "import kernels\nkernels.LIBRARIES = ()\nkernels.serve()\n")
    monkeypatch.setattr(kernels, "__file__", str(served))
    nursery = kernels.Nursery()
    assert nursery.launch(["-f", "nowhere"], None, dict(os.environ)) is None and nursery.refused == "2 threads"
    manager = KernelManager(kernel_name="python3")
    manager.provisioner = nursery.provisioner(manager)
    manager.start_kernel()
    assert not isinstance(manager.provisioner.process, kernels.Copy) and manager.is_alive()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("command", [["other", "-m", "ipykernel_launcher"], [kernels.sys.executable, "-m", "xeus"]])
def test_other_kernels_start_as_ever(nursery, monkeypatch, command):
    import asyncio

    from jupyter_client.provisioning import LocalProvisioner

    async def started(self, cmd, **options):
        return cmd

    monkeypatch.setattr(LocalProvisioner, "launch_kernel", started)
    assert asyncio.run(nursery.provisioner(KernelManager()).launch_kernel(command)) == command


def test_where_it_works(monkeypatch):
    monkeypatch.delenv("CNNLIB_FRESH_KERNELS", raising=False)
    assert kernels.possible()
    monkeypatch.setenv("CNNLIB_FRESH_KERNELS", "1")
    assert not kernels.possible()
    monkeypatch.delenv("CNNLIB_FRESH_KERNELS")
    monkeypatch.delattr(os, "fork")
    assert not kernels.possible()
