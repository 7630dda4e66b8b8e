"""Photographs from files: any that people have is read rightly, refused with the name of its file, or counted in one warning.

    image = read_photograph("holiday.jpg")        # upright, RGB, eight bits: a PIL image
    files, labels, classes = class_files("pets")  # pets/cat/*.jpg, pets/dog/*.png, ...
    train, test = parts_of("pets")                # pets/train and pets/val, or the folder itself and None
"""

import functools
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# What is read, if this Pillow can (HEIC needs the package pillow-heif), and the formats that a file's content may have.
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif")
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "AVIF", "HEIF")
NO_CLASSES = ("__macosx", "__pycache__", "thumbs.db", "desktop.ini")  # beside all names that begin with a dot
TEST_PARTS = ("val", "valid", "validation", "test")


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow opens, HEIC where the package for it is there."""
    from PIL import Image

    Image.init()
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            pass
        else:
            register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@functools.cache
def readable_endings() -> tuple[str, ...]:
    """Those of `ENDINGS` that the installed Pillow opens."""
    from PIL import Image

    formats = _formats()
    return tuple(ending for ending in ENDINGS if Image.registered_extensions().get(ending) in formats)


# --- one file ---------------------------------------------------------------------------------------------------------


def read_photograph(path: str | os.PathLike, *, at_least: int = 0):
    """The photograph as a PIL image of mode RGB, as a viewer shows it: turned as its camera says, the first frame of several.

    Transparent parts lie on white. Sixteen bits are scaled to eight, grey and CMYK become RGB; colour profiles are not applied.
    A JPEG much larger than `at_least` pixels on both sides is decoded at a half, quarter or eighth, never below twice that.
    Raises `ValueError` that names the file for one that is broken, cut short, larger than Pillow's limit, or without a
    known white (floating-point and 32-bit pixels), and `FileNotFoundError` if there is none.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file")
    try:
        with _opened(path) as image:
            if at_least:
                image.draft(None, (2 * at_least, 2 * at_least))
            image.load()
            return _on_white(_eight_bits(_upright(image)))
    except Exception as error:  # decoders raise whatever they stumble on: OSError, SyntaxError, struct.error, KeyError, ...
        reason = str(error).replace(str(path), "it") or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({reason}); replace or remove it") from error


def _opened(path: Path):
    from PIL import Image

    image = Image.open(path, formats=_formats())
    if image.format != "PNG":
        return image
    with image:
        image.verify()  # decoding does not look at the check sums of pixels
    return Image.open(path, formats=_formats())


def _upright(image):
    """Turned and mirrored as the orientation in the file's EXIF data says; broken EXIF data says nothing."""
    from PIL.Image import Transpose

    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
             6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}
    try:
        turn = turns.get(image.getexif().get(0x0112))
    except Exception:
        return image
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info, upright.format = image.info, image.format
    if hasattr(image, "tag_v2"):
        upright.tag_v2 = image.tag_v2
    return upright


def _eight_bits(image):
    """Grey of more than eight bits scaled to eight, as Pillow itself does with colours of sixteen."""
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floating-point" if image.mode == "F" else "32-bit or signed"
        raise ValueError(f"{kind} pixels have no known black and white: save it with 8 or 16 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.uint16)
    bits = 8 * values.itemsize if image.format != "TIFF" else tags.get(258, (16,))[0]  # BitsPerSample
    grey = (values >> (bits - 8)).astype(np.uint8)
    if image.format == "TIFF" and tags.get(262) == 0:  # PhotometricInterpretation: white is zero
        grey = 255 - grey
    result = Image.fromarray(grey)
    if (clear := image.info.get("transparency")) is not None:
        result.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return result


def _on_white(image):
    """As RGB, with whatever is transparent laid on white."""
    from PIL import Image

    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:
        raise ValueError("a transparent colour of 16 bits: save it with 8")
    if clear is None and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


# --- folders ----------------------------------------------------------------------------------------------------------


def _visible(folder: Path) -> list[Path]:
    """What a folder holds, in alphabetical order, without hidden things. Raises `ValueError` if it cannot be listed."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be read ({error.strerror or error})") from error
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in NO_CLASSES]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in ENDINGS and not name.startswith(".")


def class_files(path: str | os.PathLike) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """All images `path/<class>/*` in alphabetical order, the number of each one's class, and the classes.

    Hidden files and folders count as not there. One warning tells, with counts, of whatever else is not read: empty class
    folders, images beside or below class folders, files with other endings. Raises `FileNotFoundError` if there
    are no images, `ValueError` if a class folder has them in folders of its own only, or a name is there twice.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"no images below {path}: there is no such folder. {_layout(path)}")
    entries, readable = _visible(path), readable_endings()
    files, labels, classes, empty, nested, left_out = [], [], [], [], 0, Counter()
    for folder in (entry for entry in entries if entry.is_dir()):
        inside = _visible(folder)
        folders = [entry for entry in inside if entry.is_dir()]
        endings = {file: file.suffix.lower() or "without" for file in inside if file not in folders}
        images = [file for file, ending in endings.items() if ending in readable]
        left_out.update(ending for ending in endings.values() if ending not in readable)
        below = [Path(place, name) for sub in folders for place, _, names in os.walk(sub) for name in names if _is_image(name)]
        if below and not images:
            raise ValueError(f"{folder} holds no images itself, but {len(below)} in folders below it such as {below[0]}. "
                             f"{_layout(path)} Did you mean {folder}?")
        nested += len(below)
        if images:
            files += images
            labels += [len(classes)] * len(images)
            classes.append(unicodedata.normalize("NFC", folder.name))  # as macOS and Linux write accents differently
        else:
            empty.append(folder.name)
    loose = sum(_is_image(entry.name) and not entry.is_dir() for entry in entries)
    if not files:
        other = f", but {_counted(left_out)}, which are not read" if left_out else ""
        found = (f"it holds {loose} images, but no folder for each class" if loose and not empty else
                 f"it holds {', '.join(empty[:5])}, but no image in them{other}" if empty else "it has no folders")
        raise FileNotFoundError(f"no images below {path}: {found}. {_layout(path)}")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise ValueError(f"{path} has two folders for the class {', '.join(map(repr, twice))}, written in two ways")
    told = [f"{len(empty)} empty class folders ({', '.join(empty[:5])}{', ...' * (len(empty) > 5)})"] * bool(empty)
    told += [f"{loose} images beside the class folders"] * bool(loose)
    told += [f"{nested} images in folders inside of class folders"] * bool(nested)
    told += [f"files with other endings: {_counted(left_out)}"] * bool(left_out)
    if told:
        hint = " (the package pillow-heif lets Pillow read HEIC)" if left_out.keys() & {".heic", ".heif"} else ""
        warnings.warn(f"not read below {path}: {'; '.join(told)}{hint}", stacklevel=2)
    return files, labels, tuple(classes)


def _counted(endings: Counter) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common())


def _layout(path: Path) -> str:
    return f"Looked for {path}/<class>/<image> with one of the endings {', '.join(readable_endings())}."


def parts_of(path: str | os.PathLike) -> tuple[Path, Path | None]:
    """The folders of training and test images: `train/` with the first of `TEST_PARTS` that is there; else `path` and None.

    Where there are several, the others are left for the last word on a finished network, and a warning says so.
    """
    path = Path(path).expanduser()
    there = [path / name for name in TEST_PARTS if (path / name).is_dir()]
    if not (path / "train").is_dir() or not there:
        return path, None
    if len(there) > 1:
        warnings.warn(f"{path} has {', '.join(part.name for part in there)}: {there[0].name} is measured after every epoch, "
                      "the rest is left alone", stacklevel=2)
    return path / "train", there[0]


def check_same_classes(paths: Sequence[Path], classes: Sequence[tuple[str, ...]]) -> None:
    """Raises `ValueError` with the names that only one of two folders has."""
    if classes[0] != classes[1]:
        odd = sorted(set(classes[0]) ^ set(classes[1]))
        raise ValueError(f"{paths[0]} and {paths[1]} hold different classes: {', '.join(odd)}")
