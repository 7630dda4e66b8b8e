"""Well-known recipes by name: those of the papers, one for any small network today, and one for speed.

    recipe = named("resnet", model="resnet50", data="files:imagenet")
    recipe = named("modern", model="resnet20", data="cifar10", epochs=30)

The papers trained on ImageNet. For small images their random crop stands as `crop=4`; `resize`, `min_area`, `jitter`,
`randaugment` and `erase` work on large images alone. Where a paper leaves a number out, or this package does without
something, the entry's comment says so. Sources are the papers' sections on training.
"""

from cnnlib.train.recipe import Recipe

RECIPES: dict[str, dict[str, object]] = {
    # Krizhevsky et al. 2012, section 5: lr goes down by hand when the error stalls. Colours along principal axes are
    # replaced by `jitter`; the biases of 1 are the network's matter.
    "alexnet": dict(
        epochs=90, batch_size=128, lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="plateau", patience=5,
        flip=True, crop=4, resize=(256, 256), jitter=0.1,
    ),
    # Simonyan and Zisserman 2015, section 3.1: 74 epochs, scales 256 to 512; colours as for AlexNet.
    "vgg": dict(
        epochs=74, batch_size=256, lr=0.01, momentum=0.9, weight_decay=5e-4, schedule="plateau", patience=5,
        flip=True, crop=4, resize=(256, 512), jitter=0.1,
    ),
    # Szegedy et al. 2015, section 6: 4% down every 8 epochs, mean of the weights, crops of 8% to 100% of the area,
    # photometric changes; section 5: auxiliary losses at 0.3. Batch, peak, decay and length are not in the paper: ours.
    "googlenet": dict(
        epochs=240, batch_size=256, lr=0.01, momentum=0.9, weight_decay=2e-4, schedule="exponential", gamma=0.96,
        decay_epochs=8.0, average=0.9999, aux_weight=0.3, flip=True, crop=4, min_area=0.08, jitter=0.4,
    ),
    # He et al. 2016, section 3.4: up to 600,000 steps; scales 256 to 480. The paper goes down when the error stalls; the
    # usual fixed thirds of 90 epochs stand here. Colours by `jitter`.
    "resnet": dict(
        epochs=90, batch_size=256, lr=0.1, momentum=0.9, weight_decay=1e-4, schedule="step",
        milestones=(1 / 3, 2 / 3), flip=True, crop=4, resize=(256, 480), jitter=0.1,
    ),
    # He et al. 2016, section 4.2: 64,000 steps, lr down after 32,000 and 48,000. For 110 layers the paper takes lr 0.01
    # until the training error is below 80%, about 400 steps: warmup_epochs=1 is near that.
    "resnet_cifar": dict(
        epochs=164, batch_size=128, lr=0.1, momentum=0.9, weight_decay=1e-4, schedule="step", milestones=(0.5, 0.75),
        flip=True, crop=4,
    ),
    # Sandler et al. 2018 (MobileNetV2), section 6.1: RMSprop, 2% down every epoch, 16 workers of 96 images (here one). The
    # length is not in the paper: ours. The running mean of the weights is version 3's (Howard et al. 2019). Version 2's factors of the
    # moving mean of batch norm are the network's matter.
    "mobilenet": dict(
        epochs=300, batch_size=96, optimizer="rmsprop", lr=0.045, momentum=0.9, weight_decay=4e-5,
        schedule="exponential", gamma=0.98, decay_epochs=1.0, average=0.9999, flip=True, crop=4, min_area=0.08,
    ),
    # Liu et al. 2022, appendix A.1 and table 5, and the authors' `main.py`. Drop path is the network's argument:
    # model_args={"drop_path_rate": 0.1}. The authors' "rand-m9-mstd0.5-inc1" counts from 0 to 10 where torchvision counts to
    # 30: 9 of theirs turns by 27 degrees and is 27 here, with a spread of 1.5. Erasing fills with noise, scaling is cubic, and
    # biases, norms and layer scale do not decay, as there. Differs: torchvision's changes have an identity and neither inversion
    # nor added solarization, and every one drawn is made, where theirs are made every second time; theirs mix an image with
    # its mirror place in the batch, ours with its neighbour; lr ends at 0, theirs at 1e-6; the running mean of the weights is
    # the paper's, and off by default in `main.py`.
    "convnext": dict(
        epochs=300, batch_size=4096, optimizer="adamw", lr=4e-3, weight_decay=0.05, schedule="cosine", warmup_epochs=20.0,
        label_smoothing=0.1, mixup=0.8, cutmix=1.0, average=0.9999, flip=True, crop=4, min_area=0.08,
        randaugment=27, randaugment_std=1.5, erase=0.25, erase_noise=True, bicubic=True,
    ),
    # Ours, for some thousands of photographs (Imagenette, one's own), kept in memory: windows of random place and area are cut
    # out on the device. For networks without batch norm take optimizer="adamw", lr=1e-3, weight_decay=0.05.
    "photographs": dict(
        model="resnet18", data="imagenette", image_size=128, epochs=20, batch_size=64, lr=0.1, momentum=0.9, nesterov=True,
        weight_decay=5e-4, schedule="cosine", warmup_epochs=2.0, label_smoothing=0.1, average=0.998, flip=True, windows=True,
        min_area=0.25, precision="auto",
    ),
    # Ours, for any network in small-image form, with or without batch norm: AdamW forgives a poor scale of the weights,
    # warm-up and clipping a poor start. For larger batches raise lr with the root of their size.
    "modern": dict(
        epochs=30, batch_size=128, optimizer="adamw", lr=1e-3, weight_decay=0.05, clip=1.0, schedule="cosine",
        warmup_epochs=2.0, label_smoothing=0.1, average=0.998, flip=True, crop=4, cutout=8, precision="auto",
    ),
    # Ours: CIFAR-10 in few epochs on one GPU. A wide shallow residual network keeps a GPU busy; large steps that go down
    # in a straight line, and the mean of the weights, make up for the few epochs.
    "speedrun": dict(
        model="resnet18_cifar", data="cifar10", epochs=16, batch_size=512, lr=0.4, momentum=0.9, nesterov=True,
        weight_decay=5e-4, schedule="linear", warmup_epochs=3.0, label_smoothing=0.1, average=0.99, flip=True, crop=4,
        cutout=8, precision="auto", compile=True,
    ),
    # Ours: the same on a few CPU cores. Arithmetic is what is scarce there: one block a stage and half the width cost a
    # ninth of resnet18_cifar, and small batches give more updates for the same work. Compiling does not pay in minutes.
    "speedrun_cpu": dict(
        model="resnet18_cifar", model_args={"depths": [1, 1, 1, 1], "widths": [32, 64, 128, 256]}, data="cifar10",
        epochs=12, batch_size=128, lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="linear",
        warmup_epochs=2.0, label_smoothing=0.1, average=0.99, flip=True, crop=4, precision="auto",
    ),
}


def named(name: str, **changes) -> Recipe:
    """The recipe of that name, with `changes` to its fields; another model does without the arguments of the recipe's own.

    Raises `ValueError` for an unknown name or field.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; choose one of {', '.join(map(repr, RECIPES))}")
    fields = dict(RECIPES[name])
    if changes.get("model", fields.get("model")) != fields.get("model"):
        fields.pop("model_args", None)
    return Recipe.from_dict({**fields, **changes})
