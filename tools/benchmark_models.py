"""Throughput of our networks beside their twins: forward and training step, interleaved in one run.

    python tools/benchmark_models.py                            the networks of NAMES, on this machine's fastest device
    python tools/benchmark_models.py --device cpu --batch 8 --repeats 30 resnet50
    python tools/benchmark_models.py --out ratios.json          also as a file

The ratio is the twin's time over ours: above 1 ours is faster. Ours and the twin's take turns, in changing order,
with equal weights on equal images, and the median is taken over the ratios of neighbouring runs: whatever else the
machine does slows both. On a CPU freed memory stays with the process: else each large tensor costs the fetching of new
pages, and which network pays more depends on the history of the heap. The last line names what falls below `--least`, and then the exit status is 1.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from cnnlib import create_model, list_models
from cnnlib.registry import find_variant
from cnnlib.train.experiments import hardware, write_record
from cnnlib.vision import torchvision

# glibc's settings for memory that is freed: keep it, whatever its size.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**33), "MALLOC_TOP_PAD_": str(2**28)}
NAMES = ("resnet50", "densenet121", "mobilenet_v2", "shufflenet_v2_x1_0", "efficientnet_b0", "convnext_tiny", "inception_v3",
         "xception", "mnasnet_a1", "repvgg_a0", "mobileone_s0", "mobilenet_v4_conv_small", "convnext_v2_atto", "rdnet_tiny",
         "resnet18d", "bit_50x1", "nfnet_f0", "fasternet_t0", "starnet_s1", "efficientnet_lite0", "hrnet_w18_small_v2", "cspdarknet53")


def make_pair(name: str, device: str) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's or timm's, with the same tensors."""
    library, _, twin = (find_variant(name).twin or "").partition(".")
    if not library:
        sys.exit(f"{name} has no twin")
    torch.manual_seed(0)
    ours = create_model(name).to(device)
    if library == "timm":
        import timm  # only here: it is needed for some networks alone

        theirs = timm.create_model(twin).to(device)
    else:
        theirs = torchvision.models.get_model(twin).to(device)
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict({key: tensor.view_as(own) for (key, own), tensor in pairs})
    return ours, theirs


def forward(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    model.eval()

    @torch.inference_mode()
    def run():
        model(images)

    return run


def training_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """Loss (of auxiliary heads, too), gradients and an SGD step that changes nothing, so that all runs do the same work."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def run():
        optimizer.zero_grad()
        sum(F.cross_entropy(logits, labels) for logits in tree_leaves(model(images))).backward()
        optimizer.step()

    return run


def seconds(run: Callable[[], None], device: str, clock: Callable[[], float]) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def compare(
    ours: Callable[[], None], theirs: Callable[[], None], *, device: str, repeats: int, clock: Callable[[], float]
) -> dict:
    """Median times in seconds, and the median and quartiles of the ratios theirs / ours."""
    for run in (ours, theirs, ours, theirs):
        run()  # warm-up
    times = {ours: [], theirs: []}
    for turn in range(repeats):
        for run in ((ours, theirs) if turn % 2 else (theirs, ours)):
            times[run].append(seconds(run, device, clock))
    ratios = sorted(b / a for a, b in zip(times[ours], times[theirs]))
    quartiles = statistics.quantiles(ratios, n=4)
    return {"ours": statistics.median(times[ours]), "twin": statistics.median(times[theirs]),
            "ratio": statistics.median(ratios), "quartiles": [quartiles[0], quartiles[2]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help="networks with a twin in torchvision or timm")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="images in a batch (default: 64 on a GPU, 4 on a CPU)")
    parser.add_argument("--repeats", type=int, help="runs of each network (default: 100 on a GPU, 20 on a CPU)")
    parser.add_argument("--cpu-time", action="store_true",
                        help="measure processor time instead of time: for a CPU that has other work too")
    parser.add_argument("--size", type=int, help="pixels of an image's side (default: what each network was published for)")
    parser.add_argument("--least", type=float, default=0.97, help="the least median ratio")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in list_models()]
    if unknown:
        parser.error(f"unknown networks: {', '.join(unknown)}")
    device = arguments.device
    on_gpu = device == "cuda"
    if not on_gpu and not KEEP_MEMORY.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)  # read when a process starts
    if arguments.cpu_time and on_gpu:
        parser.error("--cpu-time is for --device cpu: a GPU's work takes no processor time")
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    batch, repeats = arguments.batch or (64 if on_gpu else 4), arguments.repeats or (100 if on_gpu else 20)
    machine = hardware(torch.device(device))["name"] + ("" if on_gpu else f", {torch.get_num_threads()} threads")
    measured = "processor time" if arguments.cpu_time else "time"
    print(f"{machine}, torch {torch.__version__}, torchvision {torchvision.__version__}, float32, "
          f"batch {batch}, {repeats} runs of each, {measured}")
    print(f"{'network':20} {'size':4} {'work':14} {'ours':>10} {'twin':>10} {'ratio':>7}  quartiles")

    rows = []
    for name in arguments.names:
        ours, theirs = make_pair(name, device)
        size = arguments.size or find_variant(name).input_size[-1]
        images = torch.randn(batch, 3, size, size, device=device)
        labels = torch.randint(1000, (batch,), device=device)
        for work in (forward, training_step):
            row = {"network": name, "size": size, "work": work.__name__.replace("_", " ")}
            row |= compare(work(ours, images, labels), work(theirs, images, labels),
                           device=device, repeats=repeats, clock=clock)
            rows.append(row)
            low, high = row["quartiles"]
            print(f"{name:20} {size:4} {row['work']:14} {1e3 * row['ours']:7.1f} ms {1e3 * row['twin']:7.1f} ms "
                  f"{row['ratio']:7.3f}  {low:.3f} to {high:.3f}", flush=True)
        del ours, theirs
    if arguments.out:
        write_record(arguments.out, {
            "description": f"Medians of {measured} in seconds, networks of this package and their twins of torchvision or timm in turns",
            "batch_size": batch, "repeats": repeats, "precision": "float32", "rows": rows,
            "hardware": hardware(torch.device(device)), "torchvision": torchvision.__version__,
        })
    slow = [f"{row['network']} ({row['work']})" for row in rows if row["ratio"] < arguments.least]
    print(f"below {arguments.least}: {', '.join(slow)}" if slow else f"every median ratio is at least {arguments.least}")
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
