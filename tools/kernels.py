"""Kernels for chapters that start at once: copies of one process that has imported what every chapter imports.

    nursery = Nursery()  # `python tools/kernels.py`, which imports the libraries, once
    manager.provisioner = nursery.provisioner(manager)  # of a jupyter_client KernelManager, before start_kernel
    nursery.close()

A copy (`os.fork`) begins as `python -m ipykernel_launcher` does, with the libraries loaded: nothing that one chapter does
reaches another. The process that is copied has one thread, no socket and no event loop, or it refuses. Where the system
cannot fork and watch another's child (`os.pidfd_open`: Linux), for kernels that are not this Python's, and with
CNNLIB_FRESH_KERNELS=1, kernels start as ever; so they do after a refusal (a library that computes with several threads,
as NumPy may without OMP_NUM_THREADS=1).
"""

import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys

LIBRARIES = (
    "ipykernel.ipkernel", "ipykernel.kernelapp", "ipykernel.zmqshell", "torch", "torch._dynamo", "matplotlib.pyplot", "pandas",
    "ipywidgets", "anywidget", "cnnlib.analysis.diagram", "cnnlib.data", "cnnlib.notebook", "cnnlib.train",
    "cnnlib.train.statistics", "cnnlib.widgets",
)
START = 300.0  # seconds until the libraries are there, on a busy machine
LAUNCHER = ["-m", "ipykernel_launcher"]


def possible() -> bool:
    return all(hasattr(os, name) for name in ("fork", "pidfd_open")) and os.environ.get("CNNLIB_FRESH_KERNELS") != "1"


# --- in the tests ---


class Copy:
    """A kernel of the nursery, with what jupyter_client asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = returncode = None

    def __init__(self, pid: int):
        self.pid = pid
        try:
            self._watch = os.pidfd_open(pid)
        except ProcessLookupError:  # it is dead already
            self._watch, self.returncode = None, 1

    def poll(self) -> int | None:
        """None while it runs, else 1: how it ended, only its parent knows."""
        if self.returncode is None and select.select([self._watch], [], [], 0)[0]:
            os.close(self._watch)
            self.returncode = 1
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None and not select.select([self._watch], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(LAUNCHER, timeout)
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._watch, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that is copied; started with the first kernel, ended with its owner."""

    def __init__(self):
        self._process = None
        self.refused = ""

    def launch(self, arguments: list[str], cwd: str | None, env: dict[str, str]) -> Copy | None:
        """A kernel with these arguments of ipykernel; None after a refusal, whose reason is `refused`.

        Raises `RuntimeError` if the nursery died or takes too long.
        """
        if self.refused:
            return None
        if self._process is None:
            command = [sys.executable, __file__]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write((json.dumps([arguments, str(cwd or os.getcwd()), env]) + "\n").encode())
        answer = b""
        if select.select([self._process.stdout], [], [], START)[0]:
            answer = self._process.stdout.readline()
        if not answer.strip().isdigit():
            self.close()
            self.refused = answer.decode().strip()
            if not self.refused:
                raise RuntimeError("the process that kernels are copied from died or takes too long; "
                                   "CNNLIB_FRESH_KERNELS=1 goes without")
            return None
        return Copy(int(answer))

    def provisioner(self, manager):
        """For a `KernelManager`: its kernel is a copy, if it is a kernel of this Python; else, it starts as ever."""
        from jupyter_client.provisioning import LocalProvisioner

        nursery = self

        class Provisioner(LocalProvisioner):
            async def launch_kernel(self, cmd, **options):
                env = options.get("env") or dict(os.environ)
                copy = nursery.launch(cmd[3:], options.get("cwd"), env) if cmd[:3] == [sys.executable, *LAUNCHER] else None
                if copy is None:
                    return await super().launch_kernel(cmd, **options)
                self.process = copy
                self.pid = self.pgid = self.process.pid  # it leads a group of its own
                self.cwd = options.get("cwd") or os.getcwd()
                return self.connection_info

        return Provisioner(kernel_id=manager.kernel_id, kernel_spec=manager.kernel_spec, parent=manager)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()  # its kernels notice that their parent is another, and end
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


# --- in the process that is copied ---


def become_kernel(arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """From here on this process is the kernel that `python -m ipykernel_launcher` would be; never returns."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(0, 1)
    os.dup2(0, 2)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    import ipywidgets
    import numpy as np
    import torch
    from ipykernel.kernelapp import IPKernelApp

    np.random.seed()  # Python's own generator has a new seed after a fork; these have not
    torch.default_generator.seed()
    sys.argv = [importlib.util.find_spec("ipykernel_launcher").origin, *arguments]
    app = IPKernelApp.instance(parent_handle=os.getppid())
    app.initialize(arguments)
    ipywidgets.register_comm_target(app.kernel)  # as its import does where a kernel is there before it
    app.start()


def serve() -> None:
    """Each line of stdin wants a kernel: its arguments, folder, environment. The answer is its process's number."""
    orders, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)  # what a kernel reads is no order,
    os.dup2(2, 1)  # and what a library prints is no answer
    del sys.path[0]  # this file's folder; a kernel puts in its own
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as ipykernel sets it
    for name in LIBRARIES:
        importlib.import_module(name)
    if data := sys.modules.get("cnnlib.data"):
        data.shapes()  # which are kept, and most chapters train on
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel that ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import gc

    gc.collect()
    gc.freeze()
    for line in orders:
        arguments, cwd, env = json.loads(line)
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            print(f"{threads} threads", file=answers)
            return
        process = os.fork()
        if not process:
            try:
                orders.close()
                answers.close()
                become_kernel(arguments, cwd, env)
            finally:
                os._exit(1)
        print(process, file=answers)


if __name__ == "__main__":
    serve()
