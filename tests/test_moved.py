"""Addresses of the first edition lead to where their sections are now."""

import sys
from types import SimpleNamespace

import notebooks
import pytest

sys.path.insert(0, str(notebooks.ROOT / "_ext"))
import moved

HTML = notebooks.ROOT / "_build" / "html"
built = pytest.mark.skipif(not HTML.exists(), reason="needs the built book: make book")


def test_a_section_is_here_in_depth_longer_or_where_the_table_says(monkeypatch):
    monkeypatch.setattr(moved, "TABLE", {"then": {"page": "stays deeper longer renamed"},
                                         "now": {"page": {"renamed": "other.html#new", "cut": "page.html#stays"}}})
    here, depth = {"stays", "longer-than-before", "deeper-than-that"}, {"deeper", "stays"}
    assert moved.places("page", here, depth) == {
        "deeper": "page_depth.html#deeper", "longer": "page.html#longer-than-before", "renamed": "other.html#new", "cut": "page.html#stays"}
    for lost in ({"stays", "deeper"}, {"stays", "longer-a", "longer-b"}):
        with pytest.raises(LookupError, match="'longer' of page is nowhere"):
            moved.places("page", lost, depth)


@built
@pytest.mark.parametrize("name", moved.TABLE["then"])
def test_every_section_of_the_first_edition_is_somewhere(name):
    """On its page, or where the page leads: a page that has a section of that name."""
    folder = HTML / "chapters"
    here = moved.identifiers(folder / f"{name}.html")
    places = moved.places(name, here, moved.identifiers(folder / f"{name}_depth.html"))
    assert set(moved.TABLE["then"][name].split()) <= here | set(places)
    for address in places.values():
        page, _, anchor = address.partition("#")
        assert anchor in moved.identifiers(folder / page), address


def page(tmp_path, name, *anchors):
    sections = "".join(f'<section id="{anchor}"><h2>{anchor}</h2><p style="height: 2000px">Text</p></section>' for anchor in anchors)
    (tmp_path / "chapters" / f"{name}.html").write_text(f'<!doctype html><head><title>A page</title><link rel="icon" href="data:,"></head><body>{sections}')


def test_the_built_page_leads_on(browser, serve, tmp_path, monkeypatch):
    """At once and after a click, and to no page where there is nothing to lead to; building again changes nothing."""
    (tmp_path / "chapters").mkdir()
    monkeypatch.setattr(moved, "TABLE", {"then": {"a": "summary fields problem"}, "now": {}})
    page(tmp_path, "a", "summary", "problem-too-deep")
    page(tmp_path, "a_depth", "other", "fields")
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=tmp_path)
    for _ in range(2):
        moved._lead_on(app, None)
        text = (tmp_path / "chapters" / "a.html").read_text()
        assert text.count("<script data-moved>") == 1 and '"summary":' not in text
    assert "data-moved" not in (tmp_path / "chapters" / "a_depth.html").read_text()
    address, tab = f"{serve(tmp_path)}/chapters", browser.new_page()
    for asked, shown in (("a.html#fields", "a_depth.html#fields"), ("a.html#problem", "a.html#problem-too-deep"),
                         ("a.html#summary", "a.html#summary"), ("a.html#unknown", "a.html#unknown"), ("a.html", "a.html")):
        tab.goto("about:blank")
        tab.goto(f"{address}/{asked}")
        tab.wait_for_url(f"{address}/{shown}")
    tab.evaluate("location.hash = 'fields'")
    tab.wait_for_url(f"{address}/a_depth.html#fields")
    assert tab.evaluate("scrollY") > 1000
    tab.close()
