"""resnet20 trained by `cnnlib.train` beside a public implementation in a plain loop: same images, same number of epochs.

    pip install --no-deps pytorchcv
    python tools/experiments/beside_public.py                  # the numbers of the book: one CPU thread, about half an hour
    python tools/experiments/beside_public.py --images 1000 --epochs 1 --seeds 2         # a trial

Ours is `resnet20` with projection shortcuts and the recipe "resnet_cifar" in bfloat16. The public one is pytorchcv's
`resnet20_cifar10` (the same 272,474 parameters, its own initialization), in float32, with torchvision's transforms, a
`DataLoader` and PyTorch's SGD and `MultiStepLR`: nothing of `cnnlib.train` takes part, down to the count of right answers.

Writes `data/results/beside_public.json`: the test accuracy in percent for every seed.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from cnnlib.data import ImageSet, load
from cnnlib.train import Recipe, best_device, fit, named
from cnnlib.train.experiments import hardware, write_record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from benchmark_training import Plain  # noqa: E402  (the folder is no package)

TARGET = ROOT / "data/results/beside_public.json"


def ours(recipe: Recipe, data: tuple[ImageSet, ImageSet], device: torch.device) -> float:
    """Test accuracy in percent after the last epoch."""
    *_, last = fit(recipe, data=data, device=device)
    return last["test_accuracy"]


def public(recipe: Recipe, data: tuple[ImageSet, ImageSet], device: torch.device) -> float:
    """The same from the public network and a loop without the package."""
    from pytorchcv.models.resnet_cifar import resnet20_cifar10

    torch.manual_seed(recipe.seed)
    model = resnet20_cifar10().to(device)
    train, test = data
    loader = torch.utils.data.DataLoader(Plain(train.first(recipe.train_images)), recipe.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    milestones = [round(fraction * recipe.epochs) for fraction in recipe.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=recipe.gamma)
    for _ in range(recipe.epochs):
        model.train()
        for images, labels in loader:
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()

    model.eval()
    right = 0
    with torch.no_grad():
        for first in range(0, len(test), 500):
            images = test.images[first : first + 500].to(device).float().div(255).sub(0.5).div(0.25)
            right += (model(images).argmax(1).cpu() == test.labels[first : first + 500]).sum().item()
    return 100 * right / len(test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", help="as in a recipe")
    parser.add_argument("--images", type=int, default=20_000, help="training images")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    device, data = best_device(), load(options.data)
    accuracies = {"ours": [], "public": []}
    for seed in range(options.seeds):
        recipe = named("resnet_cifar", model="resnet20", model_args={"shortcut": "B"}, data=options.data, seed=seed,
                       train_images=options.images, epochs=options.epochs, precision="bfloat16")
        for name, train in (("ours", ours), ("public", public)):
            accuracies[name].append(train(recipe, data, device))
            print(f"seed {seed}  {name}: {accuracies[name][-1]:.2f}%", flush=True)

    write_record(TARGET, {
        "description": "Test accuracy of resnet20 trained by this package, and of pytorchcv's resnet20_cifar10 trained by a plain "
                       "float32 loop with DataLoader: same images, epochs, batch, rates; seeds 0, 1, 2 ...",
        "recipe": recipe.to_dict(), "data": data[0].name, "test_images": len(data[1]), "accuracy": accuracies,
        "hardware": hardware(device),
    })


if __name__ == "__main__":
    main()
