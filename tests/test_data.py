"""Image sets: the stand-in is the same everywhere, folders are read, what is missing or broken is named."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
from other_device import OtherDevice
from PIL import Image, ImageOps

from cnnlib import data
from cnnlib.data import Augmentation, Batches, FileBatches, ImageSet


@pytest.fixture(scope="module")
def small():
    return data.shapes(200, 50)


def folder(root, *, images=3, size=32, classes=("cat", "dog"), suffix="png"):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (size, size), (40 * number, 10 * i, 0)).save(root / name / f"{i}.{suffix}")
    return root


# the stand-in


def test_stand_in_is_the_same_on_every_machine(small):
    digest = hashlib.sha256(small[0].images.numpy().tobytes() + small[1].labels.numpy().tobytes()).hexdigest()
    assert digest[:16] == "febb6ed344e39d1b"
    assert not torch.equal(data.shapes(200, 50, seed=1)[0].images, small[0].images)
    again, _ = data.shapes(200, 50)  # kept, and nobody else's
    again.images.zero_(), again.labels.zero_()
    assert torch.equal(data.shapes(200, 50)[0].images, small[0].images) and data.shapes(200, 50)[0].labels.any()


def test_stand_in_has_ten_balanced_classes(small):
    train, test = small
    assert train.labels.bincount().tolist() == [20] * 10 and test.labels.bincount().tolist() == [5] * 10
    assert train.images.shape == (200, 3, 32, 32) and len(train.classes) == 10


def test_stand_in_refuses_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="train=5, test=50, image_size=32"):
        data.shapes(5, 50)


# folders and errors


def test_cifar10_from_a_folder_says_which_copy_it_is(tmp_path, monkeypatch):
    for part in ("train", "test"):
        folder(tmp_path / part, suffix="jpg")
    monkeypatch.setenv("CNNLIB_CIFAR10", str(tmp_path))
    train, test = data.load("cifar10")
    assert train.name == test.name == "CIFAR-10 (JPEG)"
    assert len(train) == 6 and train.classes == ("cat", "dog") and sorted(train.labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_cifar10_that_is_not_there_names_place_and_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_CIFAR10", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere.*there is no such folder"):
        data.load("cifar10")
    monkeypatch.delenv("CNNLIB_CIFAR10")
    from cnnlib.vision import torchvision

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(FileNotFoundError, match="(?s)could not be downloaded.*CNNLIB_CIFAR10.*shapes"):
        data.cifar10(tmp_path)


def test_any_folder_is_split_and_scaled(tmp_path):
    train, test = data.load(f"folder:{folder(tmp_path, images=10, size=50)}", image_size=24)
    assert (len(train), len(test)) == (16, 4) and train.images.shape[1:] == (3, 24, 24)


def test_broken_image_is_named(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="broken.png cannot be read as an image"):
        data.image_folder(tmp_path)


def test_classes_that_differ_between_parts_are_named(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "test", classes=("cat", "horse"))
    with pytest.raises(ValueError, match="different classes: dog, horse"):
        data.image_folders(tmp_path)


@pytest.mark.parametrize("name", ["imagenet", "folder:", "cifar"])
def test_unknown_set_is_named(name):
    with pytest.raises(ValueError, match=f"unknown data set {name!r}"):
        data.load(name)


def test_book_file_names_every_place(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="(?s)'results/none.json' is not there; looked for.*data"):
        data.book_file("results/none.json")
    monkeypatch.setenv("CNNLIB_DATA", str(tmp_path))
    (tmp_path / "file.csv").write_text("a,b\n1,2\n")
    assert data.load_table("file") == [{"a": "1", "b": "2"}]


def test_image_set_checks_its_parts():
    with pytest.raises(ValueError, match="bytes"):
        ImageSet(torch.zeros(2, 3, 4, 4), torch.zeros(2), ("a",), "x")
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3), ("a",), "x")
    for labels in ([0, 1], [-1, 0]):
        with pytest.raises(ValueError, match="labels go from .*, but there are 1 classes"):
            ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor(labels), ("a",), "x")


def test_statistics_are_exact_and_make_no_copy():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (1203, 3, 5, 4), dtype=torch.uint8, generator=generator)
    images[:, 1] //= 2
    mean, std = ImageSet(images, torch.zeros(1203, dtype=torch.long), ("a",), "x").statistics()
    exact = images.double() / 255
    torch.testing.assert_close(mean, exact.mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(std, exact.std((0, 2, 3)).float(), rtol=1e-6, atol=0)
    many = ImageSet(torch.cat([images] * 10)[:10_500], torch.zeros(10_500, dtype=torch.long), ("a",), "x")
    many.images[10_000:] = 0  # the documented part is the first 10,000
    assert torch.equal(many.statistics()[0], ImageSet(many.images[:10_000], many.labels[:10_000], ("a",),
                                                      "x").statistics()[0])


def test_rows_and_devices(small):
    rows = torch.tensor([5, 2, 7])
    assert torch.equal(small[0].rows(rows).images, small[0].images[rows])
    assert torch.equal(small[0].rows(rows).labels, small[0].labels[rows])
    with OtherDevice() as other:
        there = small[0].to(other.device)
        assert other.has(there.rows(rows).images) and other.has(there.rows(rows).labels)
        mean, std = there.statistics()
        assert other.has(mean) and other.has(std)
        for augmentation in (None, Augmentation(2, True, 4), Augmentation(flip=True, alternate=True, size=24,
                                                                          min_area=0.3, cutout=4),
                             Augmentation(size=20), Augmentation(size=40)):
            for statistics in ((mean, std), small[0].statistics()):
                pair = next(iter(Batches(there, 16, mean=statistics[0], std=statistics[1], augmentation=augmentation,
                                         shuffle=True)))
                assert other.has(pair)
        kept, away = data.split(there.labels, 0.2, there.classes)
        assert other.has(kept) and other.has(away)


# photographs in folders and by name


def test_a_fifth_of_each_class_is_held_out_the_same_every_time(tmp_path):
    for name, count in (("a", 5), ("b", 12), ("c", 20)):
        folder(tmp_path, images=count, classes=(name,))
    train, test = data.image_files(tmp_path)
    assert test.labels.bincount().tolist() == [1, 2, 4] and train.labels.bincount().tolist() == [4, 10, 16]
    assert not set(train.files) & set(test.files) and len({*train.files, *test.files}) == 37
    assert data.image_files(tmp_path)[1].files == test.files
    assert all(file.parent.name == train.classes[label] for file, label in zip(train.files, train.labels))
    for part in (train, test):  # shuffled
        assert not torch.equal(part.labels, part.labels.sort().values)
    (tmp_path / "c" / "0.png").unlink()
    for k in range(4):
        (tmp_path / "a" / f"{k}.png").unlink()
    with pytest.raises(ValueError, match="class 'a' has 1 images; to hold out 20% of each class for testing takes at "
                                         "least 5"):
        data.load(f"folder:{tmp_path}")


def test_scenes_have_true_masks():
    images, masks = data.shape_scenes(40, per_image=3, image_size=48)
    assert images.shape == (40, 3, 48, 48) and images.dtype == torch.uint8
    assert masks.shape == (40, 48, 48) and masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= set(range(11)) and len(masks.unique()) > 8
    assert all(len(mask.unique()) <= 4 for mask in masks)
    again = data.shape_scenes(40, per_image=3, image_size=48)
    assert torch.equal(images, again[0]) and torch.equal(masks, again[1])
    # a shape is of one colour but for noise: inside a mask pixels vary less than over the whole picture
    inside = [image[:, mask == label].float().std(1).mean() / image.float().std((1, 2)).mean()
              for image, mask in zip(images, masks) for label in mask.unique() if label and (mask == label).sum() > 60]
    assert torch.stack(inside).median() < 0.75
    digest = hashlib.sha256(images[:5].numpy().tobytes() + masks[:5].numpy().tobytes()).hexdigest()
    assert digest[:16] == "5c02b45c55739ff8"
    for wrong in ({"count": 0}, {"count": 2, "per_image": 0}, {"count": 2, "image_size": 8}):
        with pytest.raises(ValueError, match="are needed"):
            data.shape_scenes(**wrong)


def test_split_takes_a_share_of_each_class_by_seed():
    labels = torch.arange(40) % 4
    kept, away = data.split(labels, 0.3, "abcd", seed=1)
    assert labels[away].bincount().tolist() == [3] * 4 and sorted([*kept.tolist(), *away.tolist()]) == list(range(40))
    assert torch.equal(kept, kept.sort().values) and torch.equal(away, away.sort().values)
    assert torch.equal(data.split(labels, 0.3, "abcd", seed=1)[1], away)
    assert not torch.equal(data.split(labels, 0.3, "abcd", seed=2)[1], away)
    assert data.split(labels, 0.9, "abcd")[0].numel() == data.split(labels, 0.99, "abcd")[0].numel() == 4
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=f"held_out={share}"):
            data.split(labels, share, "abcd")


@pytest.mark.parametrize("kind", ["folder", "files"])
@pytest.mark.parametrize("parts, chosen", [(("train", "test"), "test"), (("train", "val"), "val"), (("train", "valid"),
                                                                                                    "valid"),
                                           (("train", "val", "test"), "val")])
def test_parts_are_chosen_alike(tmp_path, kind, parts, chosen):
    for number, part in enumerate(parts):
        folder(tmp_path / part, images=3 + number)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train, test = data.load(f"{kind}:{tmp_path}")
    assert (len(train), len(test)) == (6, 2 * (3 + parts.index(chosen)))
    assert [str(warning.message).split(": ")[-1] for warning in told] == (
        ["val is measured after every epoch, the rest is left alone"] if len(parts) == 3 else [])


def test_what_is_not_read_is_told_once_with_counts(tmp_path):
    folder(tmp_path, images=5)
    (tmp_path / "empty").mkdir()
    for name in ("a.txt", "b.txt", "c.cr2", "none"):
        (tmp_path / "cat" / name).write_text("")
    folder(tmp_path / "dog", classes=("puppies",), images=2)
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    for hidden in (".ipynb_checkpoints", "__MACOSX"):
        folder(tmp_path, classes=(hidden,), images=1)
    with pytest.warns(UserWarning, match="not read below") as told:
        train, test = data.load(f"folder:{tmp_path}")
    assert train.classes == ("cat", "dog") and len(train) + len(test) == 10 and len(told) == 1
    for part in ("1 empty class folders (empty)", "1 images beside", "2 images in folders inside",
                 "2 .txt, 1 .cr2, 1 without"):
        assert part in str(told[0].message), part


def test_images_one_level_too_deep_are_refused(tmp_path):
    folder(tmp_path / "photos", images=5)
    with pytest.raises(ValueError, match="photos holds no images itself, but 10 in folders below it such as .*Did you "
                                         "mean .*photos?"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "photos").rename(tmp_path / "train")  # without a val/
    with pytest.raises(ValueError, match="train holds no images itself"):
        data.load(f"files:{tmp_path}")


def test_images_without_class_folders_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "0.png")
    with pytest.raises(FileNotFoundError, match="it holds 1 images, but no folder for each class"):
        data.load(f"folder:{tmp_path}")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    folder(tmp_path, images=5)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(ValueError, match="the folder .* cannot be read .Permission denied"):
        data.load(f"folder:{tmp_path}")


def test_cifar10_from_an_empty_folder_or_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLIB_CIFAR10", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no images below"):
        data.load("cifar10")
    folder(tmp_path, images=5, suffix="png")  # without train/ and test/
    assert data.load("cifar10")[0].name == "CIFAR-10"
    monkeypatch.setenv("CNNLIB_CIFAR10", "")
    from cnnlib.vision import torchvision

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(FileNotFoundError, match="could not be downloaded .no route to host"):
        data.load("cifar10")


def test_imagenette_from_a_folder_has_readable_names(tmp_path, monkeypatch):
    for part, count in (("train", 3), ("val", 2)):
        folder(tmp_path / part, images=count, size=50, classes=tuple(data.IMAGENETTE), suffix="jpeg")
    monkeypatch.setenv("CNNLIB_IMAGENETTE", str(tmp_path))
    train, test = data.load("imagenette", image_size=24)
    assert train.classes == test.classes and train.classes[:2] == ("tench",
                                                                   "English springer") and train.name == "Imagenette"
    assert (len(train), len(test)) == (30, 20) and train.images.shape[1:] == (3, 24, 24)
    assert data.load("imagenette")[0].images.shape[1:] == (3, 160, 160)
    for label in range(6):  # folder number k is drawn in red of 40 k
        assert (train.images[train.labels == label, 0].float().mean() - 40 * label).abs() < 4


@pytest.mark.parametrize("image_size, size, name", [(160, "160px", "imagenette2-160"), (161, "320px", "imagenette2-320"),
                                                    (500, "full", "imagenette2")])
def test_imagenette_is_downloaded_in_the_smallest_size_that_does(tmp_path, monkeypatch, image_size, size, name):
    from cnnlib.vision import torchvision

    monkeypatch.delenv("CNNLIB_IMAGENETTE", raising=False)
    asked = []

    def download(root, size, download):
        asked.append((size, download))
        for part in ("train", "val"):
            folder(root / name / part, images=1, classes=tuple(data.IMAGENETTE), suffix="jpeg")

    monkeypatch.setattr(torchvision.datasets, "Imagenette", download)
    assert len(data.imagenette(tmp_path, image_size=image_size)[0]) == 10 and asked == [(size, True)]

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "Imagenette", refuse)
    with pytest.raises(FileNotFoundError, match=f"(?s){name} and could not be downloaded.*CNNLIB_IMAGENETTE"):
        data.imagenette(tmp_path / "other", image_size=image_size)


def test_images_beyond_memory_stay_in_their_files(tmp_path, monkeypatch):
    folder(tmp_path, images=5)
    monkeypatch.setenv("CNNLIB_MEMORY", str(3 * 64 * 64 * 10 / 2**30))
    assert isinstance(data.load(f"folder:{tmp_path}", image_size=64)[0], ImageSet)  # just fits
    with pytest.warns(UserWarning, match="10 images of 65x65 pixels would take .* GiB, more than"):
        train, _ = data.load(f"folder:{tmp_path}", image_size=65)
    assert isinstance(train, data.ImageFiles) and len(train) == 8
    monkeypatch.setenv("CNNLIB_MEMORY", "lots")
    with pytest.raises(ValueError, match="CNNLIB_MEMORY='lots'"):
        data.load(f"folder:{tmp_path}")


def test_decoded_images_are_fitted_squares(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for k in range(4):
        Image.fromarray(draw.integers(0, 256, (20 + 5 * k, 60, 3), dtype=np.uint8)).save(tmp_path / "a" / f"{k}.png")
    files = data.image_folder(tmp_path, image_size=16)
    listed = sorted((tmp_path / "a").iterdir())
    fitted = [torch.from_numpy(np.array(ImageOps.fit(Image.open(file), (16, 16)))).permute(2, 0, 1) for file in listed]
    assert sorted(image.sum().item() for image in files.images) == sorted(image.sum().item() for image in fitted)
    assert all(any(torch.equal(image, other) for other in fitted) for image in files.images)


# batches


def batches(image_set, batch_size, **options):
    mean, std = image_set.statistics()
    return Batches(image_set, batch_size, mean=mean, std=std, **options)


def test_batches_are_normalized_and_count_every_image_once(small):
    test = batches(small[1], 16)
    images = torch.cat([images for images, _ in test])
    labels = torch.cat([labels for _, labels in test])
    assert len(test) == 4 and torch.equal(labels, small[1].labels)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_an_epoch_depends_on_seed_and_number_alone(small):
    def epoch(seed, number):
        training = batches(small[0], 64, shuffle=True, drop_last=True, augmentation=Augmentation(2, True, 4), seed=seed)
        training.epoch = number
        return torch.cat([images for images, _ in training])

    assert len(epoch(0, 0)) == 192
    assert torch.equal(epoch(0, 3), epoch(0, 3))
    assert not torch.equal(epoch(0, 3), epoch(0, 4)) and not torch.equal(epoch(0, 3), epoch(1, 3))


def test_augmentation_only_moves_mirrors_and_blanks():
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5).repeat(400, 1, 1, 1)
    draw = torch.Generator().manual_seed(0)
    flipped = Augmentation(flip=True)(image, draw)
    mirrored = (flipped == image.flip(3)).flatten(1).all(1)
    assert ((flipped == image).flatten(1).all(1) | mirrored).all() and 150 < mirrored.sum() < 250
    cropped = Augmentation(crop=1)(image, draw)
    corners = cropped[:, 0, 2, 2].unique().tolist()
    assert corners == [7, 8, 9, 12, 13, 14, 17, 18, 19]  # the centre and its eight neighbours
    cut = Augmentation(cutout=2)(image, draw)
    assert set((cut == 0).flatten(1).sum(1).tolist()) <= {1, 2, 4} and (cut[cut > 0] == image[cut > 0]).all()


@pytest.mark.parametrize("batch_size", [0, 300])
def test_batch_size_that_makes_no_sense(small, batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: choose 1 to 200"):
        batches(small[0], batch_size, drop_last=True)


def test_images_that_fill_no_batch_are_told(small):
    with pytest.warns(UserWarning, match="batch_size=128: 72 of 200 images are left out of every epoch"):
        batches(small[0], 128, drop_last=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches(small[0], 64, drop_last=True)  # 8 of 200
        batches(small[0], 128)
    with pytest.warns(UserWarning, match="batch_size=128: 72 of 200"):
        files = data.ImageFiles(("x",) * 200, small[0].labels, small[0].classes, "x")
        mean, std = files.statistics()
        FileBatches(files, 128, device=torch.device("cpu"), transform=None, mean=mean, std=std, drop_last=True)


@pytest.mark.parametrize("out", [(9, 13), (40, 31), (24, 24)])
def test_windows_are_scaled_as_torchvision_does(out):
    from cnnlib.vision import transforms_v2

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (12, 3, 30, 41), generator=generator, dtype=torch.uint8)
    top, left, height, width = data.random_windows(12, 30, 41, 0.1, generator)
    height[0], width[0], top[0], left[0] = 1, 1, 29, 40  # the smallest, in a corner
    ours = data.resized(images, top, left, height, width, *out)
    for k in range(12):
        theirs = transforms_v2().functional.resized_crop(
            images[k].float(), top[k].item(), left[k].item(), height[k].item(), width[k].item(), list(out),
                                                         antialias=True)
        torch.testing.assert_close(ours[k], theirs, atol=2e-3, rtol=1e-4)


def test_windows_have_the_areas_and_aspects_of_torchvision():
    from cnnlib.vision import torchvision

    top, left, height, width = data.random_windows(20_000, 100, 160, 0.25, torch.Generator().manual_seed(0)).double()
    assert (top >= 0).all() and (left >= 0).all() and (top + height).max() == 100 and (left + width).max() == 160
    assert (height * width).min() >= 0.24 * 16_000 and (width / height).max() < 1.4 and (width / height).min() > 0.72
    torch.manual_seed(0)
    image = torch.zeros(1, 100, 160)
    small = (height < 60) & (width < 80)
    assert (top + height)[small].max() == 100 and (left + width)[small].max() == 160 and top[small].min() == 0
    theirs = torch.tensor([torchvision.transforms.RandomResizedCrop.get_params(image, [0.25, 1.0], [3 / 4, 4 / 3])
                           for _ in range(4000)]).double()
    ours = torch.stack([top, left, height, width], 1)
    error = (ours.std(0) / 20_000**0.5).hypot(theirs.std(0) / 4000**0.5)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all()
    assert (ours.std(0) / theirs.std(0) - 1).abs().max() < 0.06
    whole = data.random_windows(5, 16, 16, 1.0, torch.Generator().manual_seed(0))
    assert (whole[2] * whole[3] >= 0.9 * 256).all()
    long = data.random_windows(5, 4, 100, 0.9, torch.Generator().manual_seed(0))  # nothing fits
    assert long.tolist() == [[0] * 5, [47] * 5, [4] * 5, [5] * 5]


def test_photographs_get_windows_in_training_and_the_middle_in_tests():
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(300, 3, 1, 1)
    draw = torch.Generator().manual_seed(0)
    middle = Augmentation(size=4)(images, draw)
    assert torch.equal(middle, images[:, :, 2:6, 2:6])
    assert torch.equal(Augmentation(size=5)(images, draw), images[:, :, 1:6, 1:6])
    up = Augmentation(size=16)(images, draw)
    torch.testing.assert_close(up[:1], torch.nn.functional.interpolate(images[:1].float(), size=(16, 16),
                                                                       mode="bilinear"))
    windows = Augmentation(size=4, min_area=0.2, flip=True, cutout=2)(images, draw)
    assert windows.shape == (300, 3, 4, 4) and windows.dtype == torch.float32
    assert len(windows.flatten(1).unique(dim=0)) > 150
    assert 100 < (windows[:, 0, 1, 3] < windows[:, 0, 1, 0]).sum() < 200  # mirrored ones
    blanked = Augmentation(size=4, min_area=0.2, cutout=2)(torch.full((300, 3, 8, 8), 200, dtype=torch.uint8), draw)
    assert (blanked == 0).flatten(1).any(1).all() and set((blanked[:, 0] == 0).flatten(1).sum(1).tolist()) == {1, 2, 4}
    assert Augmentation(min_area=0.5)(images, draw).shape == images.shape
    wide = Augmentation(size=8)(torch.zeros(2, 3, 6, 20, dtype=torch.uint8), draw)
    assert wide.shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="min_area=1.5"):
        Augmentation(min_area=1.5)
    with pytest.raises(ValueError, match="crop=2 and min_area=0.5"):
        Augmentation(crop=2, min_area=0.5)


def test_the_alternating_flip_turns_every_image_in_every_second_epoch(small):
    def epoch(number, seed=0, alternate=True):
        training = batches(small[0], 50, shuffle=True, augmentation=Augmentation(flip=True, alternate=alternate),
                           seed=seed)
        training.epoch = number
        order = torch.randperm(200, generator=torch.Generator().manual_seed(data.seed_of(seed, number)))
        shown = torch.empty(200, 3, 32, 32)
        shown[order] = torch.cat([images for images, _ in training])
        return shown

    first, second, third = (epoch(number) for number in range(3))
    assert torch.equal(first, third) and torch.equal(first.flip(3), second)
    plain = torch.cat([images for images, _ in batches(small[0], 50)])
    mirrored = (first == plain.flip(3)).flatten(1).all(1)
    assert ((first == plain).flatten(1).all(1) | mirrored).all() and 70 < mirrored.sum() < 130
    assert not torch.equal(first, epoch(0, seed=1))
    assert not torch.equal(epoch(0, alternate=False).flip(3), epoch(1, alternate=False))


def test_workers_are_shared_by_the_processes_of_a_machine(small, monkeypatch):
    files = data.ImageFiles(("x",) * 200, small[0].labels, small[0].classes, "x")
    mean, std = files.statistics()

    def workers(**options):
        return FileBatches(files, 8, device=torch.device("cpu"), transform=None, mean=mean, std=std, **options).workers

    monkeypatch.setattr(data, "_cores", lambda: 8)
    assert (workers(), workers(part=(0, 4)), workers(part=(0, 64))) == (8, 2, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert workers(part=(0, 64)) == 4
    monkeypatch.setenv("CNNLIB_WORKERS", "3")
    assert workers() == 3
    monkeypatch.setenv("CNNLIB_WORKERS", "many")
    with pytest.raises(ValueError, match="CNNLIB_WORKERS='many'"):
        workers()


def test_files_are_normalized_like_images_in_memory(tmp_path):
    files, _ = data.image_files(folder(tmp_path, images=5, size=8))
    mean, std = torch.tensor([0.3, 0.2, 0.1]), torch.tensor([0.5, 0.4, 0.2])
    read = FileBatches(files, 3, device=torch.device("cpu"), transform=files.square(8), mean=mean, std=std)
    read.workers = 0
    for ours, theirs in zip(read, Batches(files.decoded(8), 3, mean=mean, std=std), strict=True):
        torch.testing.assert_close(ours, theirs)
    images = files.decoded(8).images
    torch.testing.assert_close(next(iter(read))[0], (images[:3] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))


@pytest.mark.parametrize("count, drop_last, expected", [(200, True, [50] * 4), (180, True, [50] * 3),
                                                        (180, False, [50] * 3 + [30]),
                                                        (200, False, [50] * 4)])
def test_sizes_of_batches(small, count, drop_last, expected):
    whole = batches(small[0].first(count), 50, drop_last=drop_last)
    assert [len(labels) for _, labels in whole] == expected and len(whole) == len(expected)


def test_a_last_batch_smaller_than_the_processes(tmp_path):
    files, _ = data.image_files(folder(tmp_path, images=5))  # 8 for training: batches of 3, 3 and 2 for three processes
    mean, std = files.statistics()
    parts = []
    for k in range(3):
        batches = FileBatches(files, 7, device=torch.device("cpu"), transform=files.square(8), mean=mean, std=std,
                              part=(k, 3))
        batches.workers = 0
        parts.append(sum(len(labels) for _, labels in batches))
    assert sum(parts) == 8
