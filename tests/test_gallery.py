"""The gallery page and the pictures of all networks."""

import re
import xml.etree.ElementTree as ElementTree
import zlib

import gallery
import pytest
import zoo_table
from cnnlib import list_models
from cnnlib.analysis.drawing import SMALL, small_picture


def test_page_is_up_to_date_and_names_every_network():
    page = gallery.PAGE.read_text(encoding="utf-8")
    assert page == gallery.as_page(), "run python tools/gallery.py"
    shown = re.findall(r'src="\.\./_static/pictures/(\w+)\.svg" class="dark-light" loading="lazy" alt="\1: ', page)
    assert sorted(shown) == sorted(list_models())


def test_pictures_are_files_of_few_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "list_models", lambda: ["alexnet", "resnet50"])
    gallery.write_pictures(tmp_path)
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*.svg")}
    assert set(files) == {"alexnet.svg", "resnet50.svg", "small/alexnet.svg", "small/resnet50.svg"}
    for name, path in files.items():
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert path.stat().st_size < (3_000 if name.startswith("small") else 16_000)
    assert 'src="../_static/pictures/small/alexnet.svg" alt="feature maps of alexnet"' in gallery.small_picture_cell("alexnet")


def inside(path_data):
    """Corners of the closed paths of a small picture."""
    for start, steps in re.findall(r"M([^l]+)l([^z]+)z", path_data):
        x, y = map(float, start.split())
        yield x, y
        numbers = [float(text) for text in re.findall(r"-?[\d.]+", steps)]
        for dx, dy in zip(numbers[::2], numbers[1::2]):
            x, y = x + dx, y + dy
            yield x, y


@pytest.mark.parametrize("name", ["vgg19_bn", "lenet5", "efficientnet_b7", "nasnet_cifar", "googlenet"])
def test_small_pictures_are_of_one_size_and_nothing_is_cut(name):
    text = small_picture(gallery.picture_of(name))
    assert f'viewBox="0 0 {SMALL[0]} {SMALL[1]}" width="{SMALL[0]}" height="{SMALL[1]}"' in text
    corners = [corner for data in re.findall(r' d="([^"]+)"', text) for corner in inside(data)]
    assert len(corners) > 30 and all(0 < x < SMALL[0] and 0 < y < SMALL[1] for x, y in corners)
    assert len(zlib.compress(text.encode())) < 1_200


def test_every_row_of_the_zoo_page_has_its_picture():
    page = zoo_table.as_page(zoo_table.read_csv())
    shown = re.findall(r'^\| `(\w+)`<br><img src="\.\./_static/pictures/small/\1\.svg" alt="feature maps of \1" [^>]*loading="lazy"',
                       page, re.M)
    assert sorted(shown) == sorted(list_models())


def test_small_pictures_hold_a_solid_for_every_stage_and_no_words():
    text = small_picture(gallery.picture_of("resnet50"))
    tree = ElementTree.fromstring(text)
    groups = [node for node in tree if node.tag.endswith("}g")]
    assert len(groups) == 7 and not any(node.tag.endswith("}text") for node in tree.iter())
    assert "light-dark(" in text and text == small_picture(gallery.picture_of("resnet50"))
