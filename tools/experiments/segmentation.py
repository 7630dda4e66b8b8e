"""A small U-Net with and without its skip connections, on scenes of shapes whose true masks are known.

    python tools/experiments/segmentation.py                                  about half an hour of one processor core

The way down is a narrow VGG-11 for small images, from 64x64 down to 2x2; the way up has the same widths with and
without the maps of the way down. 2,000 scenes to train on, 500 others for the test, 20 epochs of a cosine that ends at
zero, three seeds of weights and order. Measured are the share of right pixels, the mean intersection over union of the
eleven classes, and the same within two pixels of an edge of the true mask, where position counts. Writes
`data/results/segmentation.json` after every run and skips what is there; weights of the first seed go to `data/weights/`.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cnnlib import create_model
from cnnlib.analysis import cost_table
from cnnlib.data import SHAPES, Batches, ImageSet, shape_scenes
from cnnlib.running import autocast, best_device, predict
from cnnlib.segmentation import UNet, intersection_over_union
from cnnlib.train.experiments import hardware, read_record, write_record

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "data" / "results" / "segmentation.json"
CLASSES = ("behind", *SHAPES)
SIZE, TRAIN, TEST = 64, 2_000, 500
WIDTHS = (16, 32, 64, 128, 128)
EPOCHS, BATCH, RATE, SEEDS = 20, 25, 2e-3, 3
MEAN = STD = torch.full((3,), 0.5)


def network(skips: bool) -> UNet:
    """The U-Net on a fresh VGG-11."""
    encoder = create_model("vgg11_cifar_bn", num_classes=10, widths=WIDTHS)
    return UNet(encoder, len(CLASSES), strides=(1, 2, 4, 8, 16, 32), widths=(16, 16, 32, 64, 64), skips=skips)


def train(model: nn.Module, images: Tensor, masks: Tensor, seed: int) -> None:
    """AdamW, one cosine down to zero, images flipped at random with their masks."""
    normal = (images.float() / 255 - 0.5) / 0.5
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            flip = [3] if torch.rand((), generator=generator) < 0.5 else []
            x = normal[rows].flip(flip).contiguous(memory_format=torch.channels_last)
            with autocast("bfloat16", images.device):
                scores = model(x)
            loss = F.cross_entropy(scores.float(), masks[rows].flip([axis - 1 for axis in flip]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def edges(masks: Tensor, reach: int = 2) -> Tensor:
    """True within `reach` pixels of a change of class; of the shape of `masks`."""
    values, side = masks[:, None].float(), 2 * reach + 1
    highest, lowest = (F.max_pool2d(sign * values, side, 1, reach) for sign in (1, -1))
    return (highest != -lowest)[:, 0]


def measure(model: nn.Module, images: Tensor, masks: Tensor) -> dict[str, object]:
    scores, _ = predict(model, Batches(ImageSet(images, torch.zeros(len(images), dtype=torch.long), ("any",), "scenes"), 100, mean=MEAN, std=STD))
    answers, near = scores.argmax(1), edges(masks)
    per_class = intersection_over_union(answers, masks, len(CLASSES))
    return {"pixels": 100 * (answers == masks).double().mean().item(), "mean_iou": 100 * per_class.mean().item(),
            "pixels_at_edges": 100 * (answers == masks)[near].double().mean().item(),
            "iou": dict(zip(CLASSES, (100 * per_class).tolist()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--output", type=Path, default=RECORD)
    options = parser.parse_args()
    device = best_device()
    record = read_record(options.output, description="A U-Net with and without skip connections on scenes of shapes", runs={}, recipe={
        "train": TRAIN, "test": TEST, "size": SIZE, "epochs": EPOCHS, "batch_size": BATCH, "lr": RATE, "optimizer": "adamw",
        "encoder": {"model": "vgg11_cifar_bn", "widths": WIDTHS}, "precision": "bfloat16"})
    images, masks = (part.to(device) for part in shape_scenes(TRAIN, image_size=SIZE, seed=0))
    test_images, test_masks = (part.to(device) for part in shape_scenes(TEST, image_size=SIZE, seed=1))
    for seed in range(options.seeds):
        for skips in (True, False):
            name = f"{'with' if skips else 'without'} skips, seed {seed}"
            if name in record["runs"]:
                continue
            torch.manual_seed(seed)
            model = network(skips).to(device, memory_format=torch.channels_last)
            table, start = cost_table(model, (3, SIZE, SIZE)), time.process_time()
            train(model, images, masks, seed)
            record["runs"][name] = {"skips": skips, "seed": seed, "params": table.total.params, "macs": table.total.macs,
                                    **measure(model, test_images, test_masks), "processor_seconds": time.process_time() - start}
            record["hardware"] = hardware(device)
            write_record(options.output, record)
            print(name, {key: value for key, value in record["runs"][name].items() if key != "iou"}, flush=True)
            if seed == 0 and options.output == RECORD:
                weights = {key: value.half() if value.is_floating_point() else value for key, value in model.cpu().state_dict().items()}
                save_file({key: value.contiguous() for key, value in weights.items()}, ROOT / "data" / "weights" / f"unet_{name.split(',')[0].replace(' ', '_')}.safetensors")


if __name__ == "__main__":
    main()
