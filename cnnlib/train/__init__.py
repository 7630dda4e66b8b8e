"""Training helpers that read on one screen: a `Recipe`, and `fit`, which yields one row of figures per epoch.

    from cnnlib.train import Recipe, fit, named
    recipe = Recipe(model="alexnet_cifar", data="shapes", epochs=3)
    for row in fit(recipe):
        print(row["epoch"], row["test_accuracy"])
    recipe = named("modern", model="resnet20", data="cifar10")
"""

from cnnlib.running import best_device, predict
from cnnlib.train.checkpoint import best_path, load_checkpoint, save_checkpoint
from cnnlib.train.inference import Inference, measure_inference
from cnnlib.train.loop import evaluate, fit
from cnnlib.train.recipe import Recipe
from cnnlib.train.recipes import RECIPES, named

__all__ = [
    "Inference", "RECIPES", "Recipe", "best_device", "best_path", "evaluate", "fit", "load_checkpoint", "measure_inference",
    "named", "predict", "save_checkpoint",
]
