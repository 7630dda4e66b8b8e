"""Image sets, batches made on the device, and the book's own files.

An image set is one tensor of bytes, and lives where the network lives: cropping, flipping and scaling happen there,
a batch at a time. Four sources give the same `ImageSet`:

    train, test = load("cifar10")                  # the original, downloaded once; or a folder that you name
    train, test = load("imagenette")               # ten classes of ImageNet's photographs, likewise
    train, test = load("shapes")                   # made on the spot, the same on every machine
    train, test = load("folder:path/to/photos")    # any folder with one subfolder per class

A set too large for memory is read from its files, a batch at a time, by worker processes.
"""

import csv
import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cnnlib.arguments import check_classes
from cnnlib.photographs import check_same_classes, class_files, parts_of, read_photograph

HELD_OUT = 0.2  # of a folder without a test part
IMAGENETTE = {
    "n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player", "n03000684": "chain saw",
    "n03028079": "church", "n03394916": "French horn", "n03417042": "garbage truck", "n03425413": "gas pump",
    "n03445777": "golf ball", "n03888257": "parachute",
}


# --- the book's own files -------------------------------------------------------------------------------------------


def book_file(name: str) -> Path:
    """Path of a file below the book's `data/` folder, such as `"results/alexnet_cifar.json"`.

    The folder is the one that the environment variable CNNLIB_DATA names; else the `data/` beside the package, or
    beside the working directory or one above it; else what was installed with the package. Raises
    `FileNotFoundError` with every place that was searched.
    """
    above = [Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents]
    places = [*(folder / "data" for folder in dict.fromkeys(above)), Path(__file__).with_name("book")]
    if "CNNLIB_DATA" in os.environ:
        places = [Path(os.environ["CNNLIB_DATA"])]
    for place in places:
        if (place / name).exists():
            return place / name
    searched = "\n  ".join(str(place / name) for place in places)
    raise FileNotFoundError(f"the book's file {name!r} is not there; looked for\n  {searched}\n"
                            "Set CNNLIB_DATA to the data/ folder of a clone of the book.")


def load_result(name: str) -> dict:
    """A measured record, `data/results/<name>.json`: recipe, rows, hardware, versions, seed."""
    return json.loads(book_file(f"results/{name}.json").read_text(encoding="utf-8"))


def load_table(name: str) -> list[dict[str, str]]:
    """The rows of a table of quoted numbers, `data/<name>.csv`; every row names its source."""
    with open(book_file(f"{name}.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- image sets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSet:
    """Images as bytes (N, C, H, W), labels (N,), and the names of the classes; `name` says which set this is."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(f"images must be bytes (N, C, H, W), not {self.images.dtype} {tuple(self.images.shape)}")
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels")
        check_classes("labels", self.labels, len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count, *shape = self.images.shape
        return f"{self.name}: {count:,} images of {' x '.join(map(str, shape))}, {len(self.classes)} classes"

    def to(self, device: torch.device | str) -> "ImageSet":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def first(self, count: int) -> "ImageSet":
        """The first `count` images; the sets here are shuffled, so this is a fair sample."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def rows(self, rows: Tensor) -> "ImageSet":
        """These of the images, in this order."""
        rows = rows.to(self.images.device)
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, of the first 10,000 images' pixels scaled to [0, 1]; each (C,).

        Bytes are counted, so that no copy of them as numbers is made, and the sums are exact.
        """
        counts = torch.zeros(self.images.shape[1], 256, dtype=torch.float64)
        for images in self.images[:10_000].split(500):
            counts += torch.stack([channel.flatten().bincount(minlength=256) for channel in images.unbind(1)]).cpu()
        values, total = torch.arange(256, dtype=torch.float64) / 255, counts.sum(1)
        mean = counts @ values / total
        variance = (counts * (values - mean[:, None]) ** 2).sum(1) / (total - 1)
        return mean.float().to(self.images.device), variance.sqrt().float().to(self.images.device)


def load(name: str, *, image_size: int | None = None) -> "tuple[ImageSet, ImageSet] | tuple[ImageFiles, ImageFiles]":
    """Training and test set by name: `"cifar10"`, `"imagenette"`, `"shapes"`, `"folder:PATH"`, or `"files:PATH"`.

    `image_size` is for photographs: every one is scaled and cropped to that many pixels square (32 in a folder, 160
    of Imagenette, if not given) and kept in memory; images of `files:` are brought to a size when they are read.
    Raises `ValueError` for an unknown name and `FileNotFoundError` for data that is not there.
    """
    source, _, path = name.partition(":")
    if image_size is not None and source not in ("folder", "files", "imagenette"):
        raise ValueError(f"image_size={image_size} applies to 'imagenette', 'folder:PATH' and 'files:PATH'; {name!r} "
                         f"has a "
                         "size of its own")
    if name == "cifar10":
        return cifar10()
    if name == "imagenette":
        return imagenette(image_size=image_size or 160)
    if name == "shapes":
        return shapes()
    if source == "folder" and path:
        return image_folders(path, image_size=image_size or 32)
    if source == "files" and path:
        return image_files(path)
    raise ValueError(f"unknown data set {name!r}; choose 'cifar10', 'imagenette', 'shapes', 'folder:PATH' or "
                     f"'files:PATH'")


def cifar10(root: str | os.PathLike = "~/.cache/cnnlib") -> tuple[ImageSet, ImageSet]:
    """CIFAR-10: 50,000 training and 10,000 test photographs of 3 x 32 x 32, ten classes.

    If the environment variable CNNLIB_CIFAR10 names a folder, it is read from there: `train/<class>/*` and
    `test/<class>/*`. Otherwise torchvision downloads the original to `root`, once, and checks it.
    Raises `FileNotFoundError` or `ValueError` that says what was looked for, where, and how to get it.
    """
    if folder := os.environ.get("CNNLIB_CIFAR10"):
        files = image_files(folder)
        jpeg = files[0].files[0].suffix.lower() in (".jpg", ".jpeg")
        return tuple(replace(part.decoded(32), name="CIFAR-10 (JPEG)" if jpeg else "CIFAR-10") for part in files)
    from cnnlib.vision import torchvision

    root = Path(root).expanduser()
    try:
        parts = [torchvision.datasets.CIFAR10(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not in {root} and could not be downloaded ({error}).\n"
            "Either connect to the internet and call again, or set the environment variable CNNLIB_CIFAR10 to a folder "
            "that holds train/<class>/ and test/<class>/ with 32x32 images, or use load('shapes'), which needs nothing."
        ) from error
    shuffle = torch.Generator().manual_seed(0)
    return tuple(
        _shuffled(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets),
                  tuple(part.classes), "CIFAR-10", shuffle)
        for part in parts
    )


def imagenette(root: str | os.PathLike = "~/.cache/cnnlib", *, image_size: int = 160) -> (
        "tuple[ImageSet, ImageSet] | tuple[ImageFiles, ImageFiles]"):
    """Imagenette: 9,469 training and 3,925 test photographs of ten classes of ImageNet, by Jeremy Howard (fast.ai).

    Read from the folder that the environment variable CNNLIB_IMAGENETTE names, `train/<wnid>/*` and `val/<wnid>/*`.
    Otherwise torchvision downloads it to `root`, once, in the smallest of its sizes (shorter side 160 or 320, or
    full) that has `image_size` pixels. Raises `FileNotFoundError` or `ValueError` that says what was looked for,
    where, and how to get it.
    """
    folder = os.environ.get("CNNLIB_IMAGENETTE")
    if not folder:
        from cnnlib.vision import torchvision

        root = Path(root).expanduser()
        size = "160px" if image_size <= 160 else "320px" if image_size <= 320 else "full"
        folder = root / f"imagenette2{'' if size == 'full' else '-' + size[:3]}"
        try:
            torchvision.datasets.Imagenette(root, size=size, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"Imagenette is not in {folder} and could not be downloaded ({error}).\n"
                "Either connect to the internet and call again, or set the environment variable CNNLIB_IMAGENETTE to "
                "a folder "
                "that holds train/<wnid>/ and val/<wnid>/, such as an unpacked imagenette2-160.tgz."
            ) from error
    parts = image_files(folder)
    names = tuple(IMAGENETTE.get(name, name) for name in parts[0].classes)
    return _in_memory(tuple(replace(part, classes=names, name="Imagenette") for part in parts), image_size)


def image_folders(path: str | os.PathLike, *, image_size: int = 32) -> (
        "tuple[ImageSet, ImageSet] | tuple[ImageFiles, ImageFiles]"):
    """Training and test set from a folder laid out as `image_files` says, in memory if they fit there.

    Raises `FileNotFoundError` if there are no images, `ValueError` for an unreadable one, for classes that differ
    between the two parts, and for a class with too few images to hold some out.
    """
    return _in_memory(image_files(path), image_size)


def image_folder(path: str | os.PathLike, *, image_size: int = 32) -> ImageSet:
    """One image set from `path/<class>/*`, shuffled, every image scaled and centre-cropped to a square of RGB bytes."""
    return _listed(Path(path).expanduser()).decoded(image_size)


def _in_memory(parts: "tuple[ImageFiles, ImageFiles]", image_size: int) -> (
        "tuple[ImageSet, ImageSet] | tuple[ImageFiles, ImageFiles]"):
    """The images decoded, unless they take more than half of the machine's memory, or than CNNLIB_MEMORY (GiB)."""
    count = sum(map(len, parts))
    needed, limit = 3 * image_size**2 * count, _memory_limit()
    if needed <= limit:
        return tuple(part.decoded(image_size) for part in parts)
    warnings.warn(f"{count:,} images of {image_size}x{image_size} pixels would take {needed / 2**30:.1f} GiB, more "
                  f"than the "
                  f"{limit / 2**30:.1f} GiB at hand: they stay in their files and are read as they are needed. Set "
                  "CNNLIB_MEMORY (in GiB) to allow more", stacklevel=3)
    return parts


def _memory_limit() -> float:
    """Bytes that decoded images may take."""
    chosen = os.environ.get("CNNLIB_MEMORY")
    if chosen:
        try:
            return float(chosen) * 2**30
        except ValueError as error:
            raise ValueError(f"CNNLIB_MEMORY={chosen!r} is not a number of GiB") from error
    if not hasattr(os, "sysconf"):  # Windows
        return 4 * 2**30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def split(labels: Tensor, held_out: float, classes: Sequence[str], *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows to keep and rows to hold out, each in rising order: of every class the same share, drawn at random.

    Raises `ValueError` for a share that is not between 0 and 1, and for a class with too few images.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out!r} must be between 0 and 1")
    generator, away = torch.Generator().manual_seed(seed), torch.zeros(len(labels), dtype=torch.bool)
    fewest = max(2, math.ceil(1 / held_out - 1e-9))
    for label, name in enumerate(classes):
        rows = (labels.cpu() == label).nonzero().flatten()
        if len(rows) < fewest:
            raise ValueError(f"class {name!r} has {len(rows)} images; to hold out {held_out:.0%} of each class for "
                             f"testing "
                             f"takes at least {fewest}")
        count = min(round(held_out * len(rows)), len(rows) - 1)
        away[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return (~away).nonzero().flatten().to(labels.device), away.nonzero().flatten().to(labels.device)


def _shuffled(images: Tensor, labels: Tensor, classes: tuple[str, ...], name: str,
              shuffle: torch.Generator) -> ImageSet:
    order = torch.randperm(len(images), generator=shuffle)
    return ImageSet(images[order], labels[order], classes, name)


# --- the offline stand-in -------------------------------------------------------------------------------------------

# Each class is a region of the plane, in coordinates (u, v) turned and scaled so that the shape fills the unit disc.
SHAPES = {
    "disc": lambda u, v: u * u + v * v < 0.7,
    "ring": lambda u, v: abs(u * u + v * v - 0.55) < 0.28,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) < 0.68,
    "frame": lambda u, v: abs(np.maximum(abs(u), abs(v)) - 0.58) < 0.17,
    "triangle": lambda u, v: (v > -0.5) & (1.732 * abs(u) + v < 0.9),
    "cross": lambda u, v: (np.minimum(abs(u), abs(v)) < 0.2) & (np.maximum(abs(u), abs(v)) < 0.85),
    "bar": lambda u, v: (abs(u) < 0.25) & (abs(v) < 0.95),
    "ell": lambda u, v: (np.minimum(u, v) > -0.7) & (np.minimum(u, v) < -0.25) & (np.maximum(u, v) < 0.75),
    "crescent": lambda u, v: (u * u + v * v < 0.75) & ((u - 0.4) ** 2 + v * v > 0.45),
    "dumbbell": lambda u, v: (u * u + (abs(v) - 0.55) ** 2 < 0.13) | ((abs(u) < 0.12) & (abs(v) < 0.6)),
}


def shapes(train: int = 8_000, test: int = 2_000, *, seed: int = 0, image_size: int = 32) -> tuple[ImageSet, ImageSet]:
    """The offline stand-in for photographs: ten kinds of shape, lighter than what is behind, in clutter and noise.

    Place, size, turn and colours vary and say nothing about the class, and other things lie in front, so that a linear
    classifier learns little and a better network scores visibly better. The same bytes
    on every machine for a seed: only integer draws and IEEE arithmetic go into them. Raises `ValueError` for counts
    below ten and sizes below 16.
    """
    if min(train, test) < 10 or image_size < 16:
        raise ValueError(f"train={train}, test={test}, image_size={image_size}: at least 10, 10 and 16 are needed")
    return tuple(ImageSet(images.clone(), labels.clone(), tuple(SHAPES), "shapes")
                 for images, labels in _drawn_shapes(train, test, seed, image_size))


@functools.lru_cache(maxsize=2)
def _drawn_shapes(train: int, test: int, seed: int, image_size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels of both sets, kept: a second asking takes milliseconds instead of most of a second."""
    draw = np.random.Generator(np.random.PCG64(seed))
    sets = []
    for count in (train, test):
        labels = draw.permutation(np.arange(count) % len(SHAPES))
        images = np.concatenate([_draw_shapes(part, image_size, draw)
                                 for part in np.array_split(labels, count // 500 + 1)])
        sets.append((torch.from_numpy(images), torch.from_numpy(labels)))
    return sets


def shape_scenes(count: int, *, per_image: int = 4, image_size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures with true masks: bytes (count, 3, size, size), and the class of every pixel (count, size, size).

    Class 0 is what is behind; 1 to 10 are the shapes of `shapes`, `per_image` of them in each picture, of any place,
    size, turn and colour, the later ones over the earlier ones. The same bytes on every machine for a seed.
    Raises `ValueError` for fewer than one picture or shape and sizes below 16.
    """
    if min(count, per_image) < 1 or image_size < 16:
        raise ValueError(f"count={count}, per_image={per_image}, image_size={image_size}: at least 1, 1 and 16 are "
                         f"needed")
    draw = np.random.Generator(np.random.PCG64(seed))
    parts = [_draw_scenes(len(part), per_image, image_size, draw)
             for part in np.array_split(np.arange(count), count // 500 + 1)]
    images, masks = map(np.concatenate, zip(*parts))
    return torch.from_numpy(images), torch.from_numpy(masks)


class _Painter:
    """Draws `count` pictures at once; all that is random comes from `draw`, in the order of the calls."""

    def __init__(self, count: int, size: int, draw: np.random.Generator):
        self.count, self.size, self.random = count, size, draw
        self.y, self.x = np.mgrid[0:size, 0:size].astype(np.float32) / size

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        drawn = low + (high - low) * self.random.random((self.count, *shape), dtype=np.float32)
        return drawn.reshape(self.count, *shape)

    def placed(self, centre: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (u, v) of all pixels, turned about the centre. A turn needs no sine: t -> (1-t^2, 2t)/(1+t^2)."""
        t = self.uniform(-1, 1, 1, 1)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        dx, dy = self.x - centre[:, 0, None, None], self.y - centre[:, 1, None, None]
        return (cosine * dx + sine * dy) / radius, (cosine * dy - sine * dx) / radius

    def background(self) -> None:
        """A gradient between two colours, and coarse blotches."""
        slope = self.uniform(-1, 1, 2)
        blend = 0.5 + slope[:, 0, None, None] * (self.x - 0.5) + slope[:, 1, None, None] * (self.y - 0.5)
        first = self.uniform(0.05, 0.5, 3)
        second = first + self.uniform(-0.3, 0.3, 3)
        self.canvas = first[:, :, None, None] + blend[:, None] * (second - first)[:, :, None, None]
        cell = -(-self.size // 8)
        blotches = self.uniform(-0.1, 0.1, 3, 8, 8)
        self.canvas += np.repeat(np.repeat(blotches, cell, axis=2), cell, axis=3)[:, :, :self.size, :self.size]
        self.mean = (first + second) / 2

    def one_of_each(self, labels: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Where each picture's own shape is: booleans (count, size, size)."""
        mask = np.empty((self.count, self.size, self.size), dtype=bool)
        for label, region in enumerate(SHAPES.values()):
            mask[labels == label] = region(u[labels == label], v[labels == label])
        return mask

    def paint(self, mask: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> None:
        self.canvas += (mask[:, None] * opacity) * (colour[:, :, None, None] - self.canvas)

    def clutter(self) -> None:
        """Small discs and bars of any colour."""
        for region in (SHAPES["disc"], SHAPES["bar"], SHAPES["bar"], SHAPES["disc"]):
            u, v = self.placed(self.uniform(0, 1, 2), self.uniform(0.05, 0.14, 1, 1))
            self.paint(region(u, v), self.uniform(0, 1, 3), self.uniform(0.5, 1.0, 1, 1, 1))

    def bytes(self) -> np.ndarray:
        self.canvas += self.uniform(-0.12, 0.12, 3, self.size, self.size)
        return (self.canvas.clip(0, 1) * 255).astype(np.uint8)


def _draw_shapes(labels: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    """Bytes (N, 3, size, size) of one noisy, cluttered picture for each label, its shape lighter than the rest."""
    painter = _Painter(len(labels), size, draw)
    painter.background()
    u, v = painter.placed(painter.uniform(0.38, 0.62, 2), painter.uniform(0.25, 0.42, 1, 1))
    mask = painter.one_of_each(labels, u, v)
    painter.paint(mask, painter.mean + painter.uniform(0.12, 0.45, 3), painter.uniform(0.75, 1.0, 1, 1, 1))
    painter.clutter()  # some of it over the shape
    return painter.bytes()


def _draw_scenes(count: int, per_image: int, size: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (count, 3, size, size) and classes (count, size, size), 0 for the background and what clutters it."""
    painter = _Painter(count, size, draw)
    painter.background()
    painter.clutter()
    classes = np.zeros((count, size, size), dtype=np.int64)
    for _ in range(per_image):
        labels = draw.integers(len(SHAPES), size=count)
        u, v = painter.placed(painter.uniform(0.1, 0.9, 2), painter.uniform(0.14, 0.3, 1, 1))
        mask = painter.one_of_each(labels, u, v)
        painter.paint(mask, painter.uniform(0, 1, 3), painter.uniform(0.8, 1.0, 1, 1, 1))
        classes = np.where(mask, 1 + labels[:, None, None], classes)
    return painter.bytes(), classes


# --- batches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn anew for every image: all of them keep the label.

    `crop` pads by so many black pixels and cuts out a window of the old size; `flip` mirrors half of the images;
    with `alternate` an image is mirrored in every second epoch, half of the images in the even ones: none is seen the
    same way twice in a row (after Jordan, 94% on CIFAR-10 in 3.29 seconds, arXiv:2404.00498, section 3.6). `cutout`
    blanks a square of so many pixels. For photographs, `size` is the side of what comes out: of a window of random
    place, of `min_area` to all of the area and of aspect 3:4 to 4:3, after Szegedy et al. 2015, section 6; without
    `min_area` of the central square of so many pixels. Windows are scaled by a triangle filter that is widened when
    it makes smaller, as Pillow's and torchvision's bilinear with antialias; pixels are not rounded again. Raises
    `ValueError` for an area outside of 0 to 1, or a crop together with one.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0
    size: int = 0
    min_area: float = 0.0
    alternate: bool = False

    def __post_init__(self):
        if not 0 <= self.min_area <= 1:
            raise ValueError(f"min_area={self.min_area!r} must be between 0 and 1")
        if self.crop and self.min_area:
            raise ValueError(f"crop={self.crop!r} and min_area={self.min_area!r}: choose one of them")

    def draw(self, count: int, height: int, width: int, generator: torch.Generator,
             turns: Tensor | None = None) -> Tensor:
        """All random numbers for `count` images, (K, count): they depend on the generator alone, on no device.

        `turns` (count,) says which images the alternating flip mirrors; where there are none, it draws them.
        """
        def below(*highs: int) -> list[Tensor]:
            return [torch.randint(high, (1, count), generator=generator) for high in highs]

        rows = [torch.empty(0, count, dtype=torch.long)]
        if self.crop:
            rows += below(2 * self.crop + 1, 2 * self.crop + 1)
        if self.min_area:
            rows.append(random_windows(count, height, width, self.min_area, generator))
        if self.flip:
            rows += [turns[None]] if self.alternate and turns is not None else below(2)
        if self.cutout:
            rows += below(self.size or height, self.size or width)
        return torch.cat(rows)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """The images (N, C, H, W) changed as the `draws` (K, N) say."""
        count, _, height, width = images.shape
        device, draws = images.device, iter(draws)
        if self.crop:
            windows = F.pad(images, 4 * (self.crop,)).unfold(2, height, 1).unfold(3, width, 1)
            images = windows[torch.arange(count, device=device), :, next(draws), next(draws)]
        if self.min_area:
            images = resized(images, *(next(draws) for _ in range(4)), self.size or height, self.size or width)
        elif self.size:
            images = centre(images, self.size)
        if self.flip:
            images = torch.where(next(draws).bool().view(-1, 1, 1, 1), images.flip(3), images)
        if self.cutout:
            # (N, H): distance to the centre
            rows = torch.arange(images.shape[2], device=device) - next(draws).view(-1, 1)
            columns = torch.arange(images.shape[3], device=device) - next(draws).view(-1, 1)
            reach = self.cutout // 2
            hole = ((rows >= -reach) & (rows < self.cutout - reach))[:, None, :, None] & (
                (columns >= -reach) & (columns < self.cutout - reach))[:, None, None, :]
            images = images.masked_fill(hole, 0)
        return images

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.apply(images, self.draw(len(images), *images.shape[2:], generator).to(images.device))


def random_windows(count: int, height: int, width: int, min_area: float, generator: torch.Generator) -> Tensor:
    """Top, left, height and width (4, count) of windows with `min_area` to all of the area and aspect 3:4 to 4:3.

    Of ten draws the first that fits inside of the image is taken; if none does, the largest central window of such an
    aspect, as torchvision does.
    """
    area, turn, down, along = torch.rand(4, 10, count, generator=generator, dtype=torch.float64)
    area = (min_area + (1 - min_area) * area) * height * width
    aspect = torch.exp((2 * turn - 1) * math.log(4 / 3))
    w, h = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    first = fits.long().argmax(0, keepdim=True)  # of equal values the first
    any_fits, h_middle, w_middle = fits.any(0), min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    h = torch.where(any_fits, h.gather(0, first)[0], h_middle)
    w = torch.where(any_fits, w.gather(0, first)[0], w_middle)
    top = torch.where(any_fits, (down[0] * (height - h + 1)).long(), (height - h_middle) // 2)
    left = torch.where(any_fits, (along[0] * (width - w + 1)).long(), (width - w_middle) // 2)
    return torch.stack([top, left, h, w])


def resized(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, out_h: int, out_w: int) -> Tensor:
    """Of each image (N, C, H, W) its own window, scaled to (N, C, out_h, out_w) in float32.

    Scaling is separable: a matrix for the rows of each image, and one for its columns.
    """
    rows = _filters(top, height, images.shape[2], out_h)
    columns = _filters(left, width, images.shape[3], out_w)
    return rows[:, None] @ images.float() @ columns[:, None].mT


def _filters(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """Weights (N, out, size) of a triangle filter that brings `length` pixels from `start` on to `out` pixels."""
    start, scale = start.view(-1, 1, 1), (length / out).view(-1, 1, 1)
    places = torch.arange(size, device=start.device) + 0.5
    centres = start + (torch.arange(out, device=start.device)[:, None] + 0.5) * scale
    weights = (1 - (places - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((places > start) & (places < start + length.view(-1, 1, 1)))
    return weights / weights.sum(2, keepdim=True)


def centre(images: Tensor, size: int) -> Tensor:
    """The central `size` x `size` pixels of images (N, C, H, W); of smaller ones the central square, scaled up."""
    height, width = images.shape[2:]
    side = min(height, width)
    if side >= size:
        top, left = (height - size) // 2, (width - size) // 2
        return images[:, :, top:top + size, left:left + size]
    whole = torch.full((len(images),), side, device=images.device)
    top, left = torch.full_like(whole, (height - side) // 2), torch.full_like(whole, (width - side) // 2)
    return resized(images, top, left, whole, whole, size, size)


def seed_of(*numbers: int) -> int:
    """One seed from several numbers such as the recipe's seed, epoch and image: the same on every machine."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return seed


def _check_batch_size(batch_size: int, images: int, drop_last: bool) -> None:
    if batch_size < 1 or (drop_last and batch_size > images):
        raise ValueError(f"batch_size={batch_size}: choose 1 to {images}, the number of images")


def _number_of_batches(count: int, batch_size: int, drop_last: bool) -> int:
    return count // batch_size if drop_last else -(-count // batch_size)


def _batches(count: int, batch_size: int, shuffle: torch.Generator | None, drop_last: bool) -> list[Tensor]:
    """The rows of every batch, in the order of the set or shuffled."""
    order = torch.arange(count) if shuffle is None else torch.randperm(count, generator=shuffle)
    batches = list(order.split(batch_size))
    return batches[:-1] if drop_last and count % batch_size else batches


def _tell_left_out(count: int, batch_size: int, drop_last: bool) -> None:
    """A warning where a full batch less would cost more than a tenth of the images of an epoch."""
    left_out = count % batch_size if drop_last else 0
    if left_out > count / 10:
        warnings.warn(f"batch_size={batch_size}: {left_out} of {count} images are left out of every epoch, others "
                      f"each time, because "
                      "they fill no batch; a smaller batch size uses more of them", stacklevel=3)


def _part(rows: Tensor, part: tuple[int, int]) -> slice:
    """Which of the rows the k-th of n processes takes: together they take all of them."""
    k, n = part
    return slice(len(rows) * k // n, len(rows) * (k + 1) // n)


class Batches:
    """Batches `(images, labels)` of an image set, where the set lives: float images, each channel normalized.

    In training the order and the augmentation depend on `seed` and on `epoch` alone, so that an epoch can be repeated
    exactly. `drop_last` leaves out the last, smaller batch: its gradient would weigh each image more, and its batch
    norm see fewer; a warning says so where that is more than a tenth of the images. With `part=(k, n)` the k-th of n
    processes gets its part of every batch, augmented as in the whole batch. Raises `ValueError` for a batch size that
    is not positive or exceeds the set while `drop_last` is on.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        *,
        mean: Tensor,
        std: Tensor,
        shuffle: bool = False,
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
    ):
        _check_batch_size(batch_size, len(image_set), drop_last)
        _tell_left_out(len(image_set), batch_size, drop_last)
        self.image_set, self.batch_size, self.shuffle, self.drop_last = image_set, batch_size, shuffle, drop_last
        self.augmentation, self.seed, self.part, self.epoch = augmentation or Augmentation(), seed, part, 0
        device = image_set.images.device
        self.scale = (1 / (255 * std)).view(-1, 1, 1).to(device)
        self.shift = (-mean / std).view(-1, 1, 1).to(device)

    def __len__(self) -> int:
        return _number_of_batches(len(self.image_set), self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.image_set.images, self.image_set.labels
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        batches = _batches(len(images), self.batch_size, generator if self.shuffle else None, self.drop_last)
        turns = torch.randint(2, (len(images),), generator=torch.Generator().manual_seed(self.seed)) ^ self.epoch % 2
        draws = [self.augmentation.draw(len(rows), *images.shape[2:], generator, turns[rows]) for rows in batches]
        plan = torch.cat([torch.cat([rows[None], draw])[:, _part(rows, self.part)]
                          for rows, draw in zip(batches, draws)], dim=1).to(images.device)  # one transfer for the epoch
        for rows, *draws in plan.split([len(rows[_part(rows, self.part)]) for rows in batches], dim=1):
            batch = self.augmentation.apply(images[rows], draws)
            yield batch.float().mul_(self.scale).add_(self.shift), labels[rows]


# --- large sets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageFiles:
    """Images too many or too large for memory: their files, labels (N,), and the names of the classes."""

    files: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.files)

    def first(self, count: int) -> "ImageFiles":
        """The first `count` images; the sets here are shuffled, so this is a fair sample."""
        return replace(self, files=self.files[:count], labels=self.labels[:count])

    def rows(self, rows: Tensor) -> "ImageFiles":
        """These of the images, in this order."""
        return replace(self, files=tuple(self.files[row] for row in rows.tolist()), labels=self.labels[rows])

    def decoded(self, image_size: int) -> ImageSet:
        """All of them in memory, each brought to `image_size` pixels square by `square`."""
        images, square = torch.empty(len(self), 3, image_size, image_size, dtype=torch.uint8), self.square(image_size)

        def read(row: int) -> None:
            images[row] = square(read_photograph(self.files[row], at_least=image_size))

        with ThreadPoolExecutor(_cores()) as pool:
            try:
                for _ in pool.map(read, range(len(self))):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return ImageSet(images, self.labels, self.classes, self.name)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, as everyone uses them for ImageNet's photographs."""
        return torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    @staticmethod
    def augmentation(
        size: int, *, resize: Sequence[int] = (), min_area: float = 0.08, flip: bool = True, jitter: float = 0.0,
        randaugment: int = 0, randaugment_std: float = 0.0, erase: float = 0.0, erase_noise: bool = False,
                     bicubic: bool = False,
    ) -> Callable:
        """From a PIL image to random bytes (3, size, size), by torchvision's transforms; see `Recipe` for the words."""
        from cnnlib.vision import NoiseErasing, NoisyRandAugment, torchvision, transforms_v2

        v2, modes = transforms_v2(), torchvision.transforms.InterpolationMode
        if resize and min(resize) < size:
            raise ValueError(f"resize={tuple(resize)}: images must not become smaller than the crop of {size} pixels")
        how = {"interpolation": modes.BICUBIC if bicubic else modes.BILINEAR, "antialias": True}
        crop = ([v2.RandomShortestSize(list(range(min(resize), max(resize) + 1)), **how), v2.RandomCrop(size)]
                if resize else
                [v2.RandomResizedCrop(size, scale=(min_area, 1.0), **how)])
        return v2.Compose([
            *crop, *[v2.RandomHorizontalFlip()] * flip, *[v2.ColorJitter(jitter, jitter, jitter)] * bool(jitter),
            *[NoisyRandAugment(randaugment, randaugment_std)] * bool(randaugment), v2.PILToTensor(),
            *[NoiseErasing(erase) if erase_noise else v2.RandomErasing(erase)] * bool(erase)])

    @staticmethod
    def square(size: int) -> Callable:
        """From a PIL image to the bytes (3, size, size) of its largest central square, by Pillow's bicubic filter."""
        from PIL import ImageOps

        def change(image) -> Tensor:
            image = image if image.size == (size, size) else ImageOps.fit(image, (size, size))
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)

        return change

    @staticmethod
    def centre(size: int, *, bicubic: bool = False) -> Callable:
        """From a PIL image to the bytes (3, size, size) of its middle, seven eighths of the shorter side."""
        from cnnlib.vision import torchvision, transforms_v2

        v2, modes = transforms_v2(), torchvision.transforms.InterpolationMode
        how = {"interpolation": modes.BICUBIC if bicubic else modes.BILINEAR, "antialias": True}
        return v2.Compose([v2.Resize(size * 8 // 7, **how), v2.CenterCrop(size), v2.PILToTensor()])


def image_files(path: str | os.PathLike) -> tuple[ImageFiles, ImageFiles]:
    """Training and test files below `path`: `train/<class>/*` and `val/<class>/*`.

    Instead of `val/` it may be `valid/`, `validation/` or `test/`. Or just `<class>/*`, of which a fifth of each
    class then goes to the test set, the same whenever they are read. Raises `FileNotFoundError` if there are no
    images, `ValueError` for classes that differ between the two parts, and for a class with fewer than five images
    where some are to be held out.
    """
    path = Path(path).expanduser()
    folders = parts_of(path)
    if folders[1] is None:
        whole = _listed(path)
        kept, away = split(whole.labels, HELD_OUT, whole.classes)
        return whole.rows(kept), whole.rows(away)
    train, test = (replace(_listed(folder), name=path.name) for folder in folders)
    check_same_classes(folders, (train.classes, test.classes))
    return train, test


def _listed(path: Path) -> ImageFiles:
    """All files of `path/<class>/*`, shuffled."""
    files, labels, classes = class_files(path)
    whole = ImageFiles(tuple(files), torch.tensor(labels), classes, path.name)
    return whole.rows(torch.randperm(len(files), generator=torch.Generator().manual_seed(0)))


def _cores() -> int:
    """Processor cores that this process may use: a scheduler or container may lend fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Decoded:
    """What a worker process needs to give the images of one epoch by their numbers."""

    files: ImageFiles
    transform: Callable
    seed: int
    epoch: int

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """The image in bytes (3, H, W) and its label; a caller's own random state stays as it is."""
        image = read_photograph(self.files.files[row])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, self.epoch, row))
            return self.transform(image), self.files.labels[row]


class FileBatches:
    """Batches like those of `Batches`, but read, decoded and changed by worker processes while the network works.

    Every image's random changes depend on seed, epoch and its number alone, not on how many workers there are.
    CNNLIB_WORKERS in the environment sets their number for each process that trains; otherwise one for each core that
    the process may use, shared with the other processes on its machine. Where a batch is too small for all processes,
    some go without it.
    """

    def __init__(
        self,
        files: ImageFiles,
        batch_size: int,
        *,
        device: torch.device,
        transform: Callable,
        mean: Tensor,
        std: Tensor,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        part: tuple[int, int] = (0, 1),
    ):
        _check_batch_size(batch_size, len(files), drop_last)
        _tell_left_out(len(files), batch_size, drop_last)
        self.files, self.batch_size, self.shuffle, self.drop_last = files, batch_size, shuffle, drop_last
        self.device, self.transform, self.seed, self.part, self.epoch = device, transform, seed, part, 0
        self.scale = (1 / (255 * std)).view(-1, 1, 1).to(device)
        self.shift = (-mean / std).view(-1, 1, 1).to(device)
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", part[1]))  # torchrun's word for processes on this machine
        chosen = os.environ.get("CNNLIB_WORKERS") or str(max(1, _cores() // beside))
        if not chosen.isdecimal():
            raise ValueError(f"CNNLIB_WORKERS={chosen!r} must be a number of processes, 0 for none")
        self.workers = int(chosen)

    def __len__(self) -> int:
        return _number_of_batches(len(self.files), self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shuffle = torch.Generator().manual_seed(seed_of(self.seed, self.epoch)) if self.shuffle else None
        batches = _batches(len(self.files), self.batch_size, shuffle, self.drop_last)
        loader = torch.utils.data.DataLoader(
            _Decoded(self.files, self.transform, self.seed, self.epoch),
            batch_sampler=[own for rows in batches if (own := rows[_part(rows, self.part)].tolist())],
            num_workers=self.workers, pin_memory=self.device.type == "cuda", generator=torch.Generator())
        for images, labels in loader:
            images = images.to(self.device, non_blocking=True).float()
            yield images.mul_(self.scale).add_(self.shift), labels.to(self.device, non_blocking=True)
