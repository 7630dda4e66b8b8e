"""Many processes that train one network: PyTorch's own distributed data parallel.

    torchrun --nproc-per-node 8 -m cnnlib.train resnet50 --recipe resnet --data files:imagenet

A scheduler may start the processes as well: each needs RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in its
environment, and LOCAL_RANK if it is to choose among several GPUs; below SLURM's `srun`, MASTER_ADDR and MASTER_PORT
suffice.

Every process takes its part of each batch; gradients are averaged, so that the weights stay equal everywhere and the
run is the one that a single process would do (dropout excepted: each process draws its own). A batch norm sees its
own process's part of the batch alone; the running statistics that are tested and saved are those of process 0.
Process 0 writes checkpoints. Should a process die, the others end with its error; start again, with as many processes
as are left, and the run goes on from the last checkpoint.

With one process everything here does nothing.
"""

import copy
import os
import random
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS", "LOCAL_RANK": "SLURM_LOCALID"}
TIMEOUT = timedelta(minutes=30)  # for one exchange: as long as process 0 may take to download a data set
_here = {"rank": 0, "processes": 1}  # among the processes of this machine


def place(environment: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """What the environment says of this process's place among many, or None if it is alone.

    Raises `ValueError` that names what is missing if only a part is given, or that makes no sense.
    """
    given = {name: environment[name] for name in (*NEEDED, "LOCAL_RANK") if name in environment}
    if "RANK" not in given and "WORLD_SIZE" not in given and SLURM["WORLD_SIZE"] in environment:
        given |= {name: environment[key] for name, key in SLURM.items() if key in environment}
    if not {"RANK", "WORLD_SIZE"} & set(given) or (given.get("WORLD_SIZE") == "1" and given.get("RANK", "0") == "0"):
        return None
    if missing := [name for name in NEEDED if name not in given]:
        raise ValueError(f"the environment has {', '.join(f'{name}={value}' for name, value in given.items())}, but not "
                         f"{', '.join(missing)}: set all of {', '.join(NEEDED)} for many processes, or none for one")
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"):
        if not given.get(name, "0").isdigit():
            raise ValueError(f"{name}={given[name]!r} in the environment must be a whole number")
    if int(given["RANK"]) >= int(given["WORLD_SIZE"]):
        raise ValueError(f"RANK={given['RANK']} in the environment must be below WORLD_SIZE={given['WORLD_SIZE']}")
    return given


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun or a scheduler started: nccl on GPUs, gloo on CPUs. Alone, nothing happens.

    An error here ends the other processes, too, and they name it.
    """
    where = place()
    if where is None or active():
        yield
        return
    os.environ.update(where)
    store, rank, processes = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    store = distributed.PrefixStore("cnnlib", store)
    store.set(f"host {rank}", socket.gethostname())
    hosts = [store.get(f"host {other}").decode() for other in range(processes)]
    _here.update(rank=int(where.get("LOCAL_RANK", hosts[:rank].count(hosts[rank]))), processes=hosts.count(hosts[rank]))
    if torch.cuda.is_available():
        torch.cuda.set_device(_here["rank"] if torch.cuda.device_count() > 1 else 0)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=processes, timeout=TIMEOUT)
    try:
        yield
    except Exception as error:  # nccl would wait for the others here; the end of the process closes its connections
        raise _first_error(store, rank, error) from error
    distributed.destroy_process_group()
    _here.update(rank=0, processes=1)


def _first_error(store: distributed.Store, rank: int, error: Exception) -> Exception:
    """This process's error, or, if another had one before, a `RuntimeError` that tells of it."""
    try:
        told = store.compare_set("error", "", f"process {rank}: {error}").decode()
    except Exception:  # the store went with the process that kept it
        return RuntimeError(f"another process ended, and this one with it; its own output says why ({error})")
    if told.startswith(f"process {rank}: "):
        time.sleep(1)  # the store may be kept by this process: time for the others to read it
        return error
    return RuntimeError(f"ended with {told}")


def active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    return distributed.get_rank() if active() else 0


def processes() -> int:
    return distributed.get_world_size() if active() else 1


def workers() -> int:
    """Worker processes for reading images: CNNLIB_WORKERS if set, else this process's share of the cores it may use."""
    if "CNNLIB_WORKERS" in os.environ:
        text = os.environ["CNNLIB_WORKERS"]
        if not text.isdigit():
            raise ValueError(f"CNNLIB_WORKERS={text!r} in the environment must be a whole number, 0 or more")
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _here["processes"])


@contextmanager
def in_turn() -> Iterator[None]:
    """Process 0 first, then one of each other machine, then all: what the first downloads is there for the rest."""
    turn = 0 if rank() == 0 else 1 if _here["rank"] == 0 else 2
    for _ in range(turn):
        _barrier()
    yield
    for _ in range(2 - turn):
        _barrier()


def _barrier() -> None:
    if active():
        distributed.all_reduce(torch.zeros(1))


def parallel(model: nn.Module, image_shape: tuple[int, ...]) -> nn.Module:
    """The network that averages its gradients over all processes."""
    return DistributedDataParallel(model, find_unused_parameters=may_skip(model, image_shape)) if active() else model


def may_skip(model: nn.Module, image_shape: tuple[int, ...]) -> bool:
    """Whether a pass in training may leave out parameters, as a FractalNet does that drops whole columns.

    A copy without values is run once for images of `image_shape` (C, H, W). It tells by a parameter that the outputs do
    not depend on, or by a draw from the processor's random state: values are not there to draw, so a decision was.
    """
    def drawn_so_far() -> tuple:
        _, numbers, position, *_ = np.random.get_state()
        return torch.get_rng_state().tolist(), random.getstate(), numbers.tolist(), position

    before, state = drawn_so_far(), (torch.get_rng_state(), random.getstate(), np.random.get_state())
    try:
        twin = copy.deepcopy(model).to("meta").train()
        outputs = twin(torch.empty(2, *image_shape, device="meta"))
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        trained = [parameter for parameter in twin.parameters() if parameter.requires_grad]
        used = torch.autograd.grad([output.sum() for output in outputs], trained, allow_unused=True)
        return drawn_so_far() != before or any(gradient is None for gradient in used)
    except Exception:  # it decides by values, or cannot be copied
        return True
    finally:
        torch.set_rng_state(state[0])
        random.setstate(state[1])
        np.random.set_state(state[2])


def local(network: nn.Module, only: bool) -> AbstractContextManager:
    """Within it gradients stay with their process if `only`: for all parts of a batch but the last one."""
    return network.no_sync() if only and active() else nullcontext()


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if active():
        distributed.all_reduce(values)
    return values


def any_of(wish: bool) -> bool:
    """Whether any process wishes it; all must ask."""
    return bool(summed(torch.tensor(float(wish))).item()) if active() else wish


def share_buffers(model: nn.Module) -> None:
    """Everyone takes over the running statistics of process 0."""
    if active():
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
