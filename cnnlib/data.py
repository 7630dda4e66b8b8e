"""Image sets, batches made on the device, and the book's own files.

A small image set is one tensor of bytes, and lives where the network lives: cropping, flipping and scaling happen there,
a batch at a time. Three sources give the same `ImageSet`:

    train, test = load("cifar10")                  # the original, downloaded once; or a folder that you name
    train, test = load("shapes")                   # made on the spot, the same on every machine
    train, test = load("folder:path/to/photos")    # any folder with one subfolder per class
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


# --- the book's own files -------------------------------------------------------------------------------------------


def book_file(name: str) -> Path:
    """Path of a file below the book's `data/` folder, such as `"results/alexnet_cifar.json"`.

    The folder is the one that the environment variable CNNLIB_DATA names; else the `data/` beside the package, or
    beside the working directory or one above it; else what was installed with the package. Raises `FileNotFoundError` with every place that was searched.
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

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, of pixels scaled to [0, 1]; each of shape (C,)."""
        pixels = self.images[:10_000].float().div(255)
        return pixels.mean((0, 2, 3)), pixels.std((0, 2, 3))


def load(name: str, *, image_size: int | None = None) -> "tuple[ImageSet, ImageSet] | tuple[ImageFiles, ImageFiles]":
    """Training and test set by name: `"cifar10"`, `"shapes"`, `"folder:PATH"`, or `"files:PATH"` for a large set.

    `image_size` is for folders: every image is scaled and cropped to that many pixels square (32 if not given). Images
    of `files:` are brought to a size when they are read.
    Raises `ValueError` for an unknown name and `FileNotFoundError` for data that is not there.
    """
    source, _, path = name.partition(":")
    if image_size is not None and source not in ("folder", "files"):
        raise ValueError(f"image_size={image_size} applies to 'folder:PATH' and 'files:PATH'; {name!r} has a size of its own")
    if name == "cifar10":
        return cifar10()
    if name == "shapes":
        return shapes()
    if source == "folder" and path:
        return image_folders(path, image_size=image_size or 32)
    if source == "files" and path:
        return image_files(path)
    raise ValueError(f"unknown data set {name!r}; choose 'cifar10', 'shapes', 'folder:PATH' or 'files:PATH'")


def cifar10(root: str | os.PathLike = "~/.cache/cnnlib") -> tuple[ImageSet, ImageSet]:
    """CIFAR-10: 50,000 training and 10,000 test photographs of 3 x 32 x 32, ten classes.

    If the environment variable CNNLIB_CIFAR10 names a folder, it is read from there: `train/<class>/*` and
    `test/<class>/*`. Otherwise torchvision downloads the original to `root`, once, and checks it.
    Raises `FileNotFoundError` or `ValueError` that says what was looked for, where, and how to get it.
    """
    if "CNNLIB_CIFAR10" in os.environ:
        train, test = image_folders(os.environ["CNNLIB_CIFAR10"], image_size=32)
        suffix = _first_image(Path(os.environ["CNNLIB_CIFAR10"]) / "train").suffix.lower()
        name = "CIFAR-10 (JPEG)" if suffix in (".jpg", ".jpeg") else "CIFAR-10"
        return replace(train, name=name), replace(test, name=name)
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


def image_folders(path: str | os.PathLike, *, image_size: int = 32) -> tuple[ImageSet, ImageSet]:
    """Training and test set from a folder of class folders.

    `path` holds `train/<class>/*` and `test/<class>/*` (or `val/`); or just `<class>/*`, of which every fifth image
    then goes to the test set. Raises `FileNotFoundError` if there are no images, `ValueError` for an unreadable one
    or for classes that differ between the two parts.
    """
    path = Path(path).expanduser()
    test_path = next((path / part for part in ("test", "val") if (path / part).is_dir()), None)
    if (path / "train").is_dir() and test_path is not None:
        train, test = (image_folder(part, image_size=image_size) for part in (path / "train", test_path))
        _check_classes(path / "train", test_path, train, test)
        return train, test
    whole = image_folder(path, image_size=image_size)
    held_out = torch.arange(len(whole)) % 5 == 4
    return tuple(replace(whole, images=whole.images[part], labels=whole.labels[part]) for part in (~held_out, held_out))


def image_folder(path: str | os.PathLike, *, image_size: int = 32) -> ImageSet:
    """One image set from `path/<class>/*`, shuffled, every image scaled and centre-cropped to a square of RGB bytes."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path).expanduser()
    files, classes = _files_by_class(path)
    images = np.empty((len(files), image_size, image_size, 3), dtype=np.uint8)
    for row, (file, _) in enumerate(files):
        try:
            with Image.open(file) as image:
                image = image.convert("RGB")
                if image.size != (image_size, image_size):
                    image = ImageOps.fit(image, (image_size, image_size))
                images[row] = np.asarray(image)
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{file} cannot be read as an image ({error}); replace or remove it") from error
    return _shuffled(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor([l for _, l in files]),
                     tuple(classes), path.name, torch.Generator().manual_seed(0))


def _files_by_class(path: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """(file, label) for all images of `path/<class>/*`, in alphabetical order, and the classes."""
    classes = sorted(folder.name for folder in path.iterdir() if folder.is_dir()) if path.is_dir() else []
    files = [(file, label) for label, name in enumerate(classes)
             for file in sorted((path / name).iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        found = f"it holds {', '.join(classes[:5])}, but no image in them" if classes else (
            "it has no folders" if path.is_dir() else "there is no such folder")
        raise FileNotFoundError(f"no images below {path}: {found}. Looked for {path}/<class>/<image> with one of "
                                f"the endings {', '.join(IMAGE_SUFFIXES)}.")
    return files, classes


def _check_classes(path: Path, test_path: Path, train: "ImageSet | ImageFiles", test: "ImageSet | ImageFiles") -> None:
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{path} and {test_path} hold different classes: {', '.join(odd)}")


def _first_image(path: Path) -> Path:
    return next(file for file in sorted(path.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES)


def _shuffled(images: Tensor, labels: Tensor, classes: tuple[str, ...], name: str, shuffle: torch.Generator) -> ImageSet:
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
    draw = np.random.Generator(np.random.PCG64(seed))
    sets = []
    for count in (train, test):
        labels = draw.permutation(np.arange(count) % len(SHAPES))
        images = np.concatenate([_draw_shapes(part, image_size, draw) for part in np.array_split(labels, count // 500 + 1)])
        sets.append(ImageSet(torch.from_numpy(images), torch.from_numpy(labels), tuple(SHAPES), "shapes"))
    return tuple(sets)


def _draw_shapes(labels: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    """Bytes (N, 3, size, size) of one noisy, cluttered picture for each label."""
    count = len(labels)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return (low + (high - low) * draw.random((count, *shape), dtype=np.float32)).reshape(count, *shape)

    def placed(centre: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (u, v) of all pixels, turned about the centre. A turn needs no sine: t -> (1-t^2, 2t)/(1+t^2)."""
        t = uniform(-1, 1, 1, 1)
        cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
        return (cosine * dx + sine * dy) / radius, (cosine * dy - sine * dx) / radius

    def paint(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray, opacity: np.ndarray) -> None:
        canvas += (mask[:, None] * opacity) * (colour[:, :, None, None] - canvas)

    # Background: a gradient between two colours, and coarse blotches.
    slope = uniform(-1, 1, 2)
    blend = 0.5 + slope[:, 0, None, None] * (x - 0.5) + slope[:, 1, None, None] * (y - 0.5)
    first = uniform(0.05, 0.5, 3)
    second = first + uniform(-0.3, 0.3, 3)
    canvas = first[:, :, None, None] + blend[:, None] * (second - first)[:, :, None, None]
    cell = -(-size // 8)
    blotches = uniform(-0.1, 0.1, 3, 8, 8)
    canvas += np.repeat(np.repeat(blotches, cell, axis=2), cell, axis=3)[:, :, :size, :size]

    # The shape itself, in a colour lighter than the background's mean.
    u, v = placed(uniform(0.38, 0.62, 2), uniform(0.25, 0.42, 1, 1))
    mask = np.empty((count, size, size), dtype=bool)
    for label, region in enumerate(SHAPES.values()):
        mask[labels == label] = region(u[labels == label], v[labels == label])
    paint(canvas, mask, (first + second) / 2 + uniform(0.12, 0.45, 3), uniform(0.75, 1.0, 1, 1, 1))

    # Clutter: small discs and bars of any colour, some of them over the shape.
    for region in (SHAPES["disc"], SHAPES["bar"], SHAPES["bar"], SHAPES["disc"]):
        u, v = placed(uniform(0, 1, 2), uniform(0.05, 0.14, 1, 1))
        paint(canvas, region(u, v), uniform(0, 1, 3), uniform(0.5, 1.0, 1, 1, 1))

    canvas += uniform(-0.12, 0.12, 3, size, size)
    return (canvas.clip(0, 1) * 255).astype(np.uint8)


# --- batches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, drawn anew for every image: all of them keep the label.

    `crop` pads by so many black pixels and cuts out a window of the old size; `flip` mirrors half of the images;
    `cutout` blanks a square of so many pixels.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """All random numbers for `count` images, (K, count): they depend on the generator alone, on no device."""
        window = 2 * self.crop + 1
        highs = [window, window] * bool(self.crop) + [2] * self.flip + [height, width] * bool(self.cutout)
        return torch.cat([torch.empty(0, count, dtype=torch.long),
                          *(torch.randint(high, (1, count), generator=generator) for high in highs)])

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """The images (N, C, H, W) changed as the `draws` (K, N) say."""
        count, _, height, width = images.shape
        device, draws = images.device, iter(draws)
        if self.crop:
            windows = F.pad(images, 4 * (self.crop,)).unfold(2, height, 1).unfold(3, width, 1)
            images = windows[torch.arange(count, device=device), :, next(draws), next(draws)]
        if self.flip:
            images = torch.where(next(draws).bool().view(-1, 1, 1, 1), images.flip(3), images)
        if self.cutout:
            rows = torch.arange(height, device=device) - next(draws).view(-1, 1)  # (N, H): distance to the centre
            columns = torch.arange(width, device=device) - next(draws).view(-1, 1)
            reach = self.cutout // 2
            hole = ((rows >= -reach) & (rows < self.cutout - reach))[:, None, :, None] & (
                (columns >= -reach) & (columns < self.cutout - reach))[:, None, None, :]
            images = images.masked_fill(hole, 0)
        return images

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self.apply(images, self.draw(len(images), *images.shape[2:], generator).to(images.device))


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


def _part(rows: Tensor, part: tuple[int, int]) -> slice:
    """Which of the rows the k-th of n processes takes: together they take all of them."""
    k, n = part
    return slice(len(rows) * k // n, len(rows) * (k + 1) // n)


class Batches:
    """Batches `(images, labels)` of an image set, where the set lives: float images, each channel normalized.

    In training the order and the augmentation depend on `seed` and on `epoch` alone, so that an epoch can be repeated
    exactly. `drop_last` leaves out the last, smaller batch. With `part=(k, n)` the k-th of n processes gets its part
    of every batch, augmented as in the whole batch. Raises `ValueError` for a batch size that is not positive
    or exceeds the set while `drop_last` is on.
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
        draws = [self.augmentation.draw(len(rows), *images.shape[2:], generator) for rows in batches]
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

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, as everyone uses them for ImageNet's photographs."""
        return torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    @staticmethod
    def augmentation(
        size: int, *, resize: Sequence[int] = (), min_area: float = 0.08, flip: bool = True, jitter: float = 0.0,
        randaugment: int = 0, erase: float = 0.0,
    ) -> Callable:
        """From a PIL image to random bytes (3, size, size), by torchvision's transforms; see `Recipe` for the words."""
        from cnnlib.vision import transforms_v2

        v2 = transforms_v2()
        if resize and min(resize) < size:
            raise ValueError(f"resize={tuple(resize)}: images must not become smaller than the crop of {size} pixels")
        crop = ([v2.RandomShortestSize(list(range(min(resize), max(resize) + 1))), v2.RandomCrop(size)] if resize else
                [v2.RandomResizedCrop(size, scale=(min_area, 1.0), antialias=True)])
        return v2.Compose([
            *crop, *[v2.RandomHorizontalFlip()] * flip, *[v2.ColorJitter(jitter, jitter, jitter)] * bool(jitter),
            *[v2.RandAugment(magnitude=randaugment)] * bool(randaugment), v2.PILToTensor(),
            *[v2.RandomErasing(erase)] * bool(erase)])

    @staticmethod
    def centre(size: int) -> Callable:
        """From a PIL image to the bytes (3, size, size) of its middle, seven eighths of the shorter side."""
        from cnnlib.vision import transforms_v2

        v2 = transforms_v2()
        return v2.Compose([v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size), v2.PILToTensor()])


def image_files(path: str | os.PathLike) -> tuple[ImageFiles, ImageFiles]:
    """Training and test files of ImageNet's layout: `path/train/<class>/*` and `path/val/<class>/*` (or `test/`).

    Raises `FileNotFoundError` if there are no images, `ValueError` for classes that differ between the two parts.
    """
    path = Path(path).expanduser()
    test_path = next((path / part for part in ("val", "test") if (path / part).is_dir()), path / "val")
    sets = []
    for part in (path / "train", test_path):
        files, classes = _files_by_class(part)
        order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
        sets.append(ImageFiles(tuple(files[i][0] for i in order), torch.tensor([files[i][1] for i in order]),
                               tuple(classes), path.name))
    _check_classes(path / "train", test_path, *sets)
    return tuple(sets)


@dataclass(frozen=True)
class _Decoded:
    """What a worker process needs to give the images of one epoch by their numbers."""

    files: ImageFiles
    transform: Callable
    seed: int
    epoch: int

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """The image in bytes (3, H, W) and its label; a caller's own random state stays as it is."""
        from PIL import Image

        path = self.files.files[row]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, self.epoch, row))
            try:
                with Image.open(path) as image:
                    return self.transform(image.convert("RGB")), self.files.labels[row]
            except OSError as error:
                raise ValueError(f"{path} cannot be read as an image ({error}); replace or remove it") from error


class FileBatches:
    """Batches like those of `Batches`, but read, decoded and changed by worker processes while the network works.

    Every image's random changes depend on seed, epoch and its number alone, not on how many workers there are.
    CNNLIB_WORKERS in the environment sets their number for each process that trains; otherwise one for each core.
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
        self.files, self.batch_size, self.shuffle, self.drop_last = files, batch_size, shuffle, drop_last
        self.device, self.transform, self.seed, self.part, self.epoch = device, transform, seed, part, 0
        self.scale = (1 / (255 * std)).view(-1, 1, 1).to(device)
        self.shift = (-mean / std).view(-1, 1, 1).to(device)
        cores = max(1, (os.cpu_count() or 1) // part[1])
        self.workers = int(os.environ.get("CNNLIB_WORKERS", cores))

    def __len__(self) -> int:
        return _number_of_batches(len(self.files), self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shuffle = torch.Generator().manual_seed(seed_of(self.seed, self.epoch)) if self.shuffle else None
        batches = _batches(len(self.files), self.batch_size, shuffle, self.drop_last)
        loader = torch.utils.data.DataLoader(
            _Decoded(self.files, self.transform, self.seed, self.epoch),
            batch_sampler=[rows[_part(rows, self.part)].tolist() for rows in batches],
            num_workers=self.workers, pin_memory=self.device.type == "cuda", generator=torch.Generator())
        for images, labels in loader:
            images = images.to(self.device, non_blocking=True).float()
            yield images.mul_(self.scale).add_(self.shift), labels.to(self.device, non_blocking=True)
