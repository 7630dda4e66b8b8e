"""Odd and hostile photographs and folders, made from a seed, each with what a reader should see or refuse.

`photograph(folder, seed)` writes one file and returns its path and the pixels that it shows (H, W, 3), with the largest mean difference
that its format explains, or None where it must be refused by name. `tree(root, seed)` writes a folder of classes.
"""

import io
import os
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

LOSSY = 6.0  # of 255: mean difference of a JPEG, WebP or AVIF file of high quality
EXIF_TURNS = {1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
              6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p, 2).swapaxes(0, 1), 8: lambda p: np.rot90(p)}
NAMES = ("a", "two words", "Ünï-cödé", "照片", "it's", 'say "cheese"', "a%20b", "100%", "x;y", "-rf", "[1]", "new\nline", "🐈")


def drawn(draw: np.random.Generator, channels: int = 3, big: bool = False) -> np.ndarray:
    """A smooth picture without symmetry (H, W, channels): gradients, so that lossy formats stay near."""
    height, width = (draw.integers(700, 900), draw.integers(900, 1200)) if big else draw.integers(20, 61, 2)
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j][..., None]
    a, b, c = draw.uniform(0, 255, (3, channels))
    return np.rint(a * (1 - x) * (1 - y) + b * x * (1 - y) + c * y).clip(0, 255).astype(np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.reshape(*grey.shape[:2], 1), 3, axis=2)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.reshape(*alpha.shape[:2], 1) / 255
    return np.rint(colours * share + 255 * (1 - share))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra: bytes) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def saved(pixels: np.ndarray, format: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[-1] == 1 else pixels).save(file, format, **options)
    return file.getvalue()


# Each kind: draw -> (ending, bytes, pixels or None, tolerance).

def plain(draw):
    ending, format, options, far = [
        (".png", "PNG", {}, 0), (".PNG", "PNG", {"compress_level": 0}, 0), (".bmp", "BMP", {}, 0), (".tif", "TIFF", {}, 0),
        (".TIFF", "TIFF", {"compression": "tiff_lzw"}, 0), (".tiff", "TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        (".webp", "WEBP", {"lossless": True}, 0), (".jpg", "JPEG", {"quality": 95}, LOSSY), (".JPEG", "JPEG", {"quality": 90}, LOSSY),
        (".jfif", "JPEG", {"quality": 95}, LOSSY), (".jpe", "JPEG", {"quality": 95, "progressive": True}, LOSSY),
        (".webp", "WEBP", {"quality": 95}, LOSSY), (".avif", "AVIF", {"quality": 95}, LOSSY),
        (".png", "JPEG", {"quality": 95}, LOSSY), (".jpg", "PNG", {}, 0)][draw.integers(15)]  # the last two: another ending
    pixels = drawn(draw)
    return ending, saved(pixels, format, **options), pixels, far


def large(draw):
    pixels = drawn(draw, big=True)
    return ".jpg", saved(pixels, "JPEG", quality=90), pixels, LOSSY


def tiny(draw):
    pixels = draw.integers(0, 256, ((1, 1, 3), (1, 50, 3), (50, 1, 3))[draw.integers(3)], dtype=np.uint8)
    return ".png", saved(pixels, "PNG"), pixels, 0


def turned(draw):
    pixels, turn = drawn(draw), int(draw.integers(1, 9))
    exif = Image.Exif()
    exif[0x0112] = turn
    ending, format, options, far = [(".jpg", "JPEG", {"quality": 95}, LOSSY), (".png", "PNG", {}, 0),
                                    (".webp", "WEBP", {"lossless": True}, 0)][draw.integers(3)]
    return ending, saved(pixels, format, exif=exif, **options), EXIF_TURNS[turn](pixels), far


def turned_tiff(draw):
    pixels, turn = drawn(draw), int(draw.integers(1, 9))
    return ".tif", saved(pixels, "TIFF", tiffinfo={274: turn}), EXIF_TURNS[turn](pixels), 0


def turned_and_clear(draw):
    pixels, turn = drawn(draw, 4), int(draw.integers(2, 9))
    exif = Image.Exif()
    exif[0x0112] = turn
    turned = EXIF_TURNS[turn](pixels)
    return ".png", saved(pixels, "PNG", exif=exif), on_white(turned[..., :3], turned[..., 3]), 1


def bad_exif(draw):
    pixels = drawn(draw)
    exif = [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*" + draw.bytes(40)][draw.integers(4)]
    return ".jpg", saved(pixels, "JPEG", quality=95, exif=exif), pixels, LOSSY


def grey(draw):
    pixels = drawn(draw, 1)
    ending, format, far = [(".png", "PNG", 0), (".jpg", "JPEG", LOSSY), (".bmp", "BMP", 0), (".tif", "TIFF", 0)][draw.integers(4)]
    return ending, saved(pixels, format), rgb(pixels), far


def one_bit(draw):
    bits = drawn(draw, 1)[..., 0] > 100
    file = io.BytesIO()
    Image.fromarray(bits).save(file, ("PNG", "BMP", "TIFF")[kind := draw.integers(3)])
    return (".png", ".bmp", ".tif")[kind], file.getvalue(), rgb(255 * bits.astype(np.uint8)), 0


def grey16(draw):
    values = drawn(draw, 1)[..., 0].astype(np.uint16) * 256 + int(draw.integers(256))
    if draw.integers(2):
        return ".tif", saved(values, "TIFF"), rgb(values // 256), 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return ".png", png(*values.shape[::-1], 16, 0, rows), rgb(values // 256), 0


def inverted16(draw):
    values = drawn(draw, 1)[..., 0].astype(np.uint16) * 256
    data = saved(values, "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)
    at = data.index(entry) + 8
    return ".tif", data[:at] + struct.pack("<H", 0) + data[at + 2:], rgb(255 - values // 256), 0


def colour16(draw):
    values = drawn(draw).astype(np.uint16) * 256 + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return ".png", png(*values.shape[1::-1], 16, 2, rows), values // 256, 0


def key16(draw):
    """A transparent colour or grey of sixteen bits: grey is honoured; colour may be refused, but never shown."""
    values = np.full((20, 30), 20_000, dtype=np.uint16)
    values[5:9] = 40_001
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    clear = rgb(np.where(values == 40_001, 255, values // 256))
    if draw.integers(2):
        return ".png", png(30, 20, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 40_001))), clear, 0
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in values)
    return ".png", png(30, 20, 16, 2, rows, png_chunk(b"tRNS", struct.pack(">3H", *[40_001] * 3))), None, 0


def cmyk(draw):
    inks = drawn(draw, 4)
    file = io.BytesIO()
    ending, format, far = [(".jpg", "JPEG", LOSSY), (".tif", "TIFF", 0)][draw.integers(2)]
    Image.fromarray(inks, "CMYK").save(file, format, **({"quality": 95} if far else {}))
    light = 255 - inks.astype(float)
    return ending, file.getvalue(), light[..., :3] * light[..., 3:] / 255, far + 1


def lab(draw):
    picture = Image.fromarray(drawn(draw))
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    file = io.BytesIO()
    ImageCms.profileToProfile(picture, *profiles, outputMode="LAB").save(file, "TIFF")
    return ".tif", file.getvalue(), np.asarray(picture), 4


def palette(draw):
    picture = Image.fromarray(drawn(draw)).quantize(16)
    file = io.BytesIO()
    ending, format = [(".png", "PNG"), (".gif", "GIF"), (".bmp", "BMP"), (".tif", "TIFF")][draw.integers(4)]
    picture.save(file, format)
    return ending, file.getvalue(), np.asarray(picture.convert("RGB")), 0


def clear_palette(draw):
    picture = Image.fromarray(drawn(draw)).quantize(16)
    hidden = int(np.asarray(picture)[3, 3])
    file = io.BytesIO()
    ending, format = [(".png", "PNG"), (".gif", "GIF")][draw.integers(2)]
    picture.save(file, format, transparency=hidden, **({"optimize": False} if format == "GIF" else {}))
    shown = np.asarray(picture.convert("RGB")).copy()
    shown[np.asarray(picture) == hidden] = 255
    return ending, file.getvalue(), shown, 0


def half_clear_palette(draw):
    picture = Image.fromarray(drawn(draw)).quantize(8)
    alpha = draw.integers(0, 256, 8, dtype=np.uint8)
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=alpha.tobytes())
    return ".png", file.getvalue(), on_white(np.asarray(picture.convert("RGB")), alpha[np.asarray(picture)]), 1


def clear(draw):
    pixels = drawn(draw, (4, 2)[k := draw.integers(2)])
    file = io.BytesIO()
    ending, format, options = [(".png", "PNG", {}), (".webp", "WEBP", {"lossless": True, "exact": True}),
                               (".tif", "TIFF", {})][draw.integers(3)]
    Image.fromarray(pixels, ("RGBA", "LA")[k]).save(file, format, **options)
    colours = pixels[..., :3] if k == 0 else rgb(pixels[..., :1])
    return ending, file.getvalue(), on_white(colours, pixels[..., -1]), 1


def clear_key(draw):
    mode = ("RGB", "L", "1")[draw.integers(3)]
    picture = Image.fromarray(drawn(draw)).quantize(6).convert("RGB").convert(mode)
    key = picture.getpixel((2, 2))
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=int(key > 0) if mode == "1" else key)
    shown = np.asarray(picture.convert("RGB")).copy()
    shown[(shown == np.asarray(Image.new(mode, (1, 1), key).convert("RGB"))[0, 0]).all(-1)] = 255
    return ".png", file.getvalue(), shown, 0


def animated(draw):
    pixels = drawn(draw)
    file = io.BytesIO()
    ending, format, options, far = [(".gif", "GIF", {}, 8), (".png", "PNG", {}, 0), (".webp", "WEBP", {"lossless": True}, 0),
                                    (".tif", "TIFF", {}, 0)][draw.integers(4)]
    frames = [Image.fromarray(255 - pixels), Image.fromarray(pixels[::-1].copy())]
    Image.fromarray(pixels).save(file, format, save_all=True, append_images=frames, **options)
    return ending, file.getvalue(), pixels, far


def floating(draw):
    mode = ("F", "I")[draw.integers(2)]
    file = io.BytesIO()
    Image.fromarray(drawn(draw, 1)[..., 0]).convert(mode).save(file, "TIFF")
    return ".tiff", file.getvalue(), None, 0


def bomb(draw):
    if draw.integers(2):
        return ".png", png(60_000, 60_000, 8, 2, b"\0" * 1000), None, 0
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 80_000_000))
    return ".png", png(4, 4, 8, 0, b"\0\1\2\3\4" * 4, text), None, 0


def no_image(draw):
    data = [b"", b"\0", b"not an image", b"<!DOCTYPE html><title>404</title>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF",
            b"II*\0\x08\0\0\0\xff\xff", b"BM", draw.bytes(2000), b"version https://git-lfs.github.com/spec/v1\n"][draw.integers(15)]
    return (".jpg", ".png", ".gif", ".webp", ".tif", ".bmp", ".avif")[draw.integers(7)], data, None, 0


def cut(draw):
    """Cut short: refused, or, where only what follows the pixels is missing, read rightly."""
    ending, data, pixels, far = plain(draw) if draw.integers(2) else palette(draw)
    return ending, data[:int(draw.integers(1, len(data)))], pixels, far


def scratched(draw):
    """A byte of a format with check sums is another one."""
    ending, data, pixels, far = [turned, clear, animated, grey16, palette][draw.integers(5)](draw)
    while not data.startswith(b"\x89PNG"):
        ending, data, pixels, far = [turned, clear, animated, grey16, palette][draw.integers(5)](draw)
    at = int(draw.integers(8, len(data)))
    return ending, data[:at] + bytes([data[at] ^ int(draw.integers(1, 256))]) + data[at + 1:], pixels, far


KINDS = (plain, turned, grey, clear, cut, large, turned_tiff, grey16, clear_palette, scratched, tiny, bad_exif, cmyk, animated,
         no_image, turned_and_clear, one_bit, inverted16, clear_key, floating, plain, colour16, half_clear_palette, palette, bomb, lab,
         key16)
MAY_BE_REFUSED = (cut, scratched)


def photograph(folder: Path, seed: int) -> tuple[Path, np.ndarray | None, float, bool]:
    """Path, pixels that it shows (None: must be refused), tolerance, and whether it may be refused all the same."""
    draw = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    ending, data, pixels, far = kind(draw)
    path = folder / f"{NAMES[draw.integers(len(NAMES))]} {seed}{ending}"
    path.write_bytes(data)
    return path, pixels, far, kind in MAY_BE_REFUSED


# --- folders ----------------------------------------------------------------------------------------------------------


def coloured(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 255 - colour, 40)).save(path)


def tree(root: Path, seed: int) -> tuple[Path, dict[str, dict[int, int]], bool]:
    """A folder, and for each part the number of images of each class, by the colours in which they are drawn.

    Third: whether everything is in order, so that it must be read; else reading it or a named refusal are both right.
    """
    draw = np.random.default_rng(seed)
    root = root / f"{NAMES[seed % len(NAMES)]} {seed}"
    count = int(draw.integers(2, 5))
    classes = [f"{NAMES[k]}" for k in draw.permutation(len(NAMES))[:count]]
    colours = {name: 20 + 50 * k for k, name in enumerate(classes)}
    parts = [(), ("train", "val"), ("train", "test"), ("train", "val", "test"), ("train", "valid")][draw.integers(5)] or ("",)
    truth, sound = {part: {} for part in parts}, True
    for part in parts:
        for name in classes:
            images = int(draw.integers(5, 9))
            truth[part][colours[name]] = images
            for k in range(images):
                coloured(root / part / name / f"{NAMES[k]}{k}{('.png', '.PNG', '.bmp')[draw.integers(3)]}", colours[name])
    for oddity in sorted(set(draw.integers(0, 17, 2).tolist())):
        place = root / parts[draw.integers(len(parts))]
        first, some = place / classes[0], colours[classes[0]]
        if oddity == 0:
            coloured(place / ".ipynb_checkpoints" / "0.png", 250)
        elif oddity == 1:
            coloured(first / ".hidden.png", 250)
        elif oddity == 2:
            (place / "empty").mkdir(exist_ok=True)
        elif oddity == 3:
            coloured(first / "deeper" / "still" / "x.png", 250)
        elif oddity == 4:
            coloured(place / "collage" / "deeper" / "x.png", 250)  # a class without images of its own
            sound = False
        elif oddity == 5:
            coloured(place / "loose.png", 250)
        elif oddity == 6:
            (first / "notes.txt").write_text("no image")
            (first / "raw.cr2").write_bytes(b"no image")
            (first / "none").write_bytes(b"no image")
        elif oddity == 7:
            (first / "folder.jpg").mkdir(exist_ok=True)
        elif oddity == 8:
            (first / f"gone{seed}.jpg").symlink_to(place / "nowhere")
            sound = False
        elif oddity == 9 and not (place / "linked").exists():
            coloured(root.parent / f"elsewhere {seed}" / "0.png", 230)
            (place / "linked").symlink_to(root.parent / f"elsewhere {seed}", target_is_directory=True)
            sound = False  # one image: too few to hold some out, or a class of one part alone
        elif oddity == 10 and not (first / "loop").exists():
            (first / "loop").symlink_to(place, target_is_directory=True)
        elif oddity == 11:
            (first / "zero.png").touch()
            sound = False
        elif oddity == 12 and not (first / "pipe.png").exists():
            os.mkfifo(first / "pipe.png")
            sound = False
        elif oddity == 13:
            for form in ("NFC", "NFD"):
                for k in range(5):
                    coloured(place / unicodedata.normalize(form, "né") / f"{k}.png", 240)
            sound = False
        elif oddity == 14:
            coloured(place / "__MACOSX" / "._x.png", 250)
            (first / "Thumbs.db").write_bytes(b"no image")
        elif oddity == 15:
            for file in sorted(first.iterdir())[1:]:
                if file.is_file():
                    file.unlink()
            sound = False
        elif oddity == 16 and first.exists() and not first.is_symlink() and not (place / "renamed").exists():
            first.rename(place / "renamed")
            (place / classes[0]).symlink_to(place / "renamed", target_is_directory=True)
            (place / "renamed").rename(root.parent / f"outside {seed} {draw.integers(10**9)}")
            sound = False  # a link that leads nowhere any more
    return root, truth, sound
