"""The error of finished runs on their own training images, in evaluation mode and without augmentation.

    python tools/experiments/training_error.py data/experiments/degradation_30.toml [--work runs]

The accuracy that a training prints was taken while the weights changed, on images shifted and mirrored, with the batch's own
statistics. Here the weights of the last epoch answer for every training image once. Each run of the plan's record whose
checkpoint is in WORK/<plan> gets an entry `train_evaluated`: accuracy in percent and mean cross-entropy in nats.
"""

import argparse
from pathlib import Path

from torch.nn import functional as F

from cnnlib.data import Batches
from cnnlib.running import predict
from cnnlib.train.checkpoint import load_checkpoint, tested_weights
from cnnlib.train.experiments import accuracy, add_to_record, read_plan, read_record
from cnnlib.train.loop import load_data, make_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan")
    parser.add_argument("--work", default="runs")
    options = parser.parse_args()
    plan = read_plan(options.plan)
    for name, done in read_record(plan.record, runs={})["runs"].items():
        checkpoint = plan.checkpoint(name, options.work)
        if "train_evaluated" in done or not checkpoint.exists():
            continue
        recipe = plan.recipes[name]
        state = load_checkpoint(checkpoint, recipe=recipe)
        if state["epoch"] != recipe.epochs:
            raise SystemExit(f"{checkpoint} stands at epoch {state['epoch']} of {recipe.epochs}")
        training, _ = load_data(recipe)
        training = training.first(recipe.train_images) if recipe.train_images else training
        mean, std = training.statistics()
        model = make_model(recipe, training.classes)
        model.load_state_dict(tested_weights(state))
        logits, labels = predict(model, Batches(training, 500, mean=mean, std=std), recipe.precision)
        found = {"accuracy": accuracy(logits, labels, 1), "loss": F.cross_entropy(logits, labels).item()}
        add_to_record(plan, "runs", name, {**done, "train_evaluated": found})
        print(name, found, flush=True)


if __name__ == "__main__":
    main()
