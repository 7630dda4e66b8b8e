"""The gallery page and the pictures of all networks."""

import re
import xml.etree.ElementTree as ElementTree

import gallery
from cnnlib import list_models
from cnnlib.analysis.drawing import small_picture


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
        assert path.stat().st_size < (8_000 if name.startswith("small") else 16_000)
    assert f'src="../_static/pictures/small/{"alexnet"}.svg"' in gallery.small_picture_cell("alexnet")


def test_small_pictures_hold_a_solid_for_every_stage_and_no_words():
    text = small_picture(gallery.picture_of("resnet50"))
    tree = ElementTree.fromstring(text)
    groups = [node for node in tree if node.tag.endswith("}g")]
    assert len(groups) == 7 and not any(node.tag.endswith("}text") for node in tree.iter())
    assert "light-dark(" in text and text == small_picture(gallery.picture_of("resnet50"))
