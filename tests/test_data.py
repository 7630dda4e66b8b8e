"""Image sets: the stand-in is the same everywhere, folders are read, what is missing or broken is named."""

import hashlib

import pytest
import torch
from PIL import Image

from cnnlib import data
from cnnlib.data import Augmentation, Batches, ImageSet


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
