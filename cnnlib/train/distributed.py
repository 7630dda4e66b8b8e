"""Many processes that train one network: PyTorch's own distributed data parallel, started by `torchrun`.

    torchrun --nproc-per-node 8 -m cnnlib.train resnet50 --recipe resnet --data files:imagenet

Every process takes its part of each batch; gradients are averaged, so that the weights stay equal everywhere and the
run is the one that a single process would do (dropout excepted: each process draws its own). A batch norm sees its
own process's part of the batch alone; the running statistics that are tested and saved are those of process 0.
Process 0 writes checkpoints. Should a process die, torchrun ends the others; start again, with as many processes as
are left, and the run goes on from the last checkpoint.

With one process everything here does nothing.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started: nccl on GPUs, gloo on CPUs. Without torchrun, nothing happens."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def active() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def rank() -> int:
    return distributed.get_rank() if active() else 0


def processes() -> int:
    return distributed.get_world_size() if active() else 1


def parallel(model: nn.Module) -> nn.Module:
    """The network that averages its gradients over all processes."""
    return DistributedDataParallel(model) if active() else model


def local(network: nn.Module, only: bool) -> AbstractContextManager:
    """Within it gradients stay with their process if `only`: for all parts of a batch but the last one."""
    return network.no_sync() if only and active() else nullcontext()


def summed(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if active():
        distributed.all_reduce(values)
    return values


def share_buffers(model: nn.Module) -> None:
    """Everyone takes over the running statistics of process 0."""
    if active():
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
