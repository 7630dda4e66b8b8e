"""A `Recipe` is a whole experiment: network, data, optimization, regularization, precision, seed."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field

CHOICES = {
    "optimizer": ("sgd", "adamw", "rmsprop"),
    "schedule": ("constant", "cosine", "linear", "step", "exponential", "plateau"),
    "precision": ("auto", "float32", "bfloat16", "float16"),
}
POSITIVE = ("epochs", "batch_size", "lr", "gamma", "decay_epochs", "patience", "accumulate")
NOT_NEGATIVE = ("train_images", "weight_decay", "warmup_epochs", "clip", "aux_weight", "mixup", "cutmix", "crop", "cutout",
                "image_size", "jitter", "randaugment", "randaugment_std")
FRACTIONS = ("held_out", "momentum", "label_smoothing", "average")  # at least 0, below 1
SHARES = ("min_area", "erase")  # at least 0, at most 1
TYPES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Mapping: "a table of arguments"}


def _typed(name: str, value: object, kind: object) -> object:
    """The value as a field of that type has it: lists as tuples, whole numbers as floats where those are meant."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
            raise ValueError(f"{name}={value!r} must be a list of numbers")
        return tuple(_typed(name, entry, typing.get_args(kind)[0]) for entry in value)
    kind = typing.get_origin(kind) or kind
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name}={value!r} must be {TYPES[kind]}")
    return dict(value) if kind is Mapping else value


def setting(default: object, text: str) -> object:
    """A field of a recipe and the sentence that explains it, here and in the help of the command line."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Recipe:
    """One experiment, complete: saved with every checkpoint and every result.

    Rates and counts must be positive, fractions between 0 and 1; anything else raises `ValueError`. A field's default
    is what every earlier recipe meant that lacks the field. `cnnlib.train.recipes` holds well-known recipes by name.
    """

    model: str = setting("alexnet_cifar", "a name of list_models()")
    model_args: Mapping[str, object] = field(default_factory=dict, metadata={
        "help": "keyword arguments of the network; on the command line as JSON, such as '{\"dropout\": 0.0}'"})
    weights: str = setting("", "start from these: a checkpoint, or a name of describe(model).weights; the last layer starts "
                               "anew if the classes are others")
    data: str = setting("shapes", "'cifar10', 'imagenette', 'shapes' (made on the spot), 'folder:PATH' (brought to one size and kept "
                                  "in memory) or 'files:PATH' (large images such as ImageNet's, read as they are needed)")
    train_images: int = setting(0, "use only so many training images; 0 means all")
    held_out: float = setting(0.0, "to choose between recipes: hold out this share of each class's training images, the same ones for "
                                   "every seed, and test on them in place of the test images; 0 means none")

    epochs: int = setting(10, "passes over the training images")
    batch_size: int = setting(128, "images between two updates of the weights, over all processes together")
    accumulate: int = setting(1, "take each batch in so many parts, to save memory; batch norm sees one part at a time")
    optimizer: str = setting("sgd", "sgd has momentum; adamw needs a hundredth of its step size; rmsprop is for old recipes")
    lr: float = setting(0.05, "peak step size; the first number to tune, by factors of 3")
    momentum: float = setting(0.9, "of sgd and rmsprop: share of the last update that is kept")
    nesterov: bool = setting(False, "sgd: look ahead along the momentum")
    weight_decay: float = setting(5e-4, "pull of the weights towards 0; biases and norm scales are left alone")
    fused: bool = setting(True, "update all weights in one kernel instead of one after the other")
    clip: float = setting(0.0, "largest norm of the gradient; 0 means any")

    schedule: str = setting("cosine", "how lr goes down: cosine and linear to 0; step at the milestones; exponential every "
                                      "decay_epochs; plateau when the test accuracy stalls")
    warmup_epochs: float = setting(0.0, "raise lr linearly from 0 over so many epochs; large batches need it")
    gamma: float = setting(0.1, "factor of one step down: for step, exponential, plateau")
    milestones: tuple[float, ...] = setting((0.5, 0.75), "for step: the fractions of the run at which lr goes down")
    decay_epochs: float = setting(1.0, "for exponential: epochs between two steps down")
    patience: int = setting(3, "for plateau: epochs without a better test accuracy before lr goes down")

    label_smoothing: float = setting(0.0, "share of the target that is spread evenly over all classes")
    mixup: float = setting(0.0, "blend pairs of images; Beta(a, a) draws the shares, this is a; 0 means never")
    cutmix: float = setting(0.0, "paste a window of one image into another, a as for mixup; with both, a coin decides")
    aux_weight: float = setting(0.3, "weight of the losses of auxiliary classifiers, for networks that have them")
    average: float = setting(0.0, "decay of a running mean of the weights, which is tested and kept as well; 0 means none")

    flip: bool = setting(False, "augmentation: mirror half of the images")
    crop: int = setting(0, "augmentation of small images: pad by so many pixels, crop at random")
    cutout: int = setting(0, "augmentation of small images: blank a square of so many pixels")
    image_size: int = setting(0, "side in pixels to which photographs are brought; 0 means 32 for folder:, 160 for imagenette, "
                                 "224 for files:")
    windows: bool = setting(False, "augmentation of photographs in memory: they are kept an eighth larger than image_size; windows of "
                                   "random place and of min_area to all of the area are brought to it, and the middle is tested")
    resize: tuple[int, ...] = setting((), "large images: bring the shorter side to a length between these two, then crop at "
                                          "random; empty means a crop of random area instead")
    min_area: float = setting(0.08, "large images and windows: smallest area of a random crop, as a fraction; 1 takes the largest")
    jitter: float = setting(0.0, "large images: change brightness, contrast and saturation by up to this fraction")
    randaugment: int = setting(0, "large images: strength of two random changes (RandAugment), 0 to 30")
    randaugment_std: float = setting(0.0, "large images: spread of that strength, drawn for every image from a normal distribution")
    erase: float = setting(0.0, "large images: chance that a random rectangle is blanked")
    erase_noise: bool = setting(False, "large images: fill the rectangle with noise, a value for every pixel, and not with black")
    bicubic: bool = setting(False, "large images: scale by cubic interpolation, and not by linear")

    precision: str = setting("float32", "auto takes bfloat16 where the hardware has instructions for it, float16 with a scaled "
                                        "loss on older GPUs, else float32, and says which")
    channels_last: bool = setting(True, "keep the channels of a pixel side by side in memory, as fast convolutions want it")
    compile: bool = setting(False, "torch.compile: a minute of waiting, then faster steps")
    test_training: bool = setting(False, "after every epoch measure the training images as well as the test images: "
                                         "without augmentation, in evaluation mode (trainset_loss, trainset_accuracy)")
    seed: int = setting(0, "of weights, order, augmentation and dropout")

    def __post_init__(self):
        for entry in dataclasses.fields(self):
            object.__setattr__(self, entry.name, _typed(entry.name, getattr(self, entry.name), entry.type))
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}; choose one of {', '.join(map(repr, allowed))}")
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must not be negative")
        for name in FRACTIONS:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be between 0 and 1")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate={self.accumulate!r} must not exceed batch_size={self.batch_size!r}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs={self.warmup_epochs!r} must not exceed epochs={self.epochs!r}")
        if not all(0 < fraction < 1 for fraction in self.milestones):
            raise ValueError(f"milestones={self.milestones!r} must be fractions of the run, between 0 and 1: epoch 30 of 90 is "
                             f"0.333")
        if self.nesterov and not (self.optimizer == "sgd" and self.momentum):
            raise ValueError(f"nesterov=True needs optimizer='sgd' with momentum; here optimizer={self.optimizer!r}, "
                             f"momentum={self.momentum!r}")
        if self.windows and (self.crop or not self.image_size):
            raise ValueError(f"windows=True needs an image_size and no crop; here image_size={self.image_size!r}, crop={self.crop!r}")
        if len(self.resize) not in (0, 2):
            raise ValueError(f"resize={self.resize!r} must be empty or two lengths")

    def to_dict(self) -> dict:
        """Plain data, as JSON has it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Recipe":
        """The inverse of `to_dict`. Raises `ValueError` for a field that recipes do not have."""
        known = [entry.name for entry in dataclasses.fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(f"a recipe has no {', '.join(map(repr, unknown))}; its fields are {', '.join(known)}")
        return cls(**values)

    def differences(self, earlier: Mapping[str, object]) -> list[str]:
        """Names of the fields in which a recorded recipe, `to_dict` of then, is another one than this.

        Fields that did not exist then have their defaults.
        """
        now, then = self.to_dict(), {**Recipe().to_dict(), **earlier}
        return [name for name in sorted({*now, *then}) if name not in now or now[name] != then[name]]
