"""Photographs and folders that people have: read as a viewer shows them, or refused with the file's name."""

import io
import warnings

import hostile
import numpy as np
import pytest
import torch
from PIL import Image

from cnnlib import data
from cnnlib.photographs import read_photograph


@pytest.mark.parametrize("first", range(0, 216, 27))
def test_hostile_files_are_read_rightly_or_refused_by_name(first, tmp_path):
    read = 0
    for seed in range(first, first + 27):
        path, pixels, far, may_be_refused = hostile.photograph(tmp_path, seed)
        try:
            image = read_photograph(path)
        except ValueError as error:
            assert str(path) in str(error), f"{seed}: {error}"
            assert pixels is None or may_be_refused, f"{seed}: {error}"
        else:
            assert pixels is not None, f"{path} should be refused"
            found = np.asarray(image).astype(float)
            assert found.shape == pixels.shape, f"{seed}: {path}"
            assert np.abs(found - pixels).mean() <= far, f"{seed}: {path}, {np.abs(found - pixels).mean()}"
            read += 1
    assert read >= 18


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_hostile_folders_are_read_rightly_or_refused_by_name(first, tmp_path):
    for seed in range(first, first + 20):
        root, truth, sound = hostile.tree(tmp_path, seed)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                train, test = data.load(f"folder:{root}", image_size=8)
            except (ValueError, FileNotFoundError) as error:
                assert not sound, f"{seed}: {error}"
                assert any(name in str(error) for name in (str(root), "class '")), f"{seed}: {error}"
                continue
        for part, image_set in zip(truth, (train, test) if len(truth) > 1 else (None,)):
            image_set = image_set or data.ImageSet(torch.cat([train.images, test.images]), torch.cat([train.labels,
                                                                                                      test.labels]),
                                                   train.classes, "both")
            colours = image_set.images[:, 0, 4, 4].tolist()
            if sound:
                assert {colour: colours.count(colour) for colour in set(colours)} == truth[part], seed
            assert len(set(zip(colours, image_set.labels.tolist()))) == len(set(colours)), seed  # one class, one colour
        assert len(told) <= len(truth) + 1, [str(warning.message) for warning in told]


def test_pixels_whose_check_sum_is_wrong_are_refused(tmp_path):
    """Every pixel can be decoded; only the sum beside them says that something on the way changed them."""
    written = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(written, "PNG")
    sound = written.getvalue()
    (tmp_path / "sound.png").write_bytes(sound)
    assert read_photograph(tmp_path / "sound.png").size == (8, 8)
    start = sound.index(b"IDAT")
    end = start + 4 + int.from_bytes(sound[start - 4:start])  # where the four bytes of the sum begin
    (tmp_path / "changed.png").write_bytes(sound[:end] + bytes([sound[end] ^ 1]) + sound[end + 1:])
    with pytest.raises(ValueError, match="changed.png cannot be read as an image"):
        read_photograph(tmp_path / "changed.png")
