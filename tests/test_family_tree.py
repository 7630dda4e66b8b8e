"""The family tree on the landing page: drawn from its table, every idea a link, nothing in the way of anything else."""

import re

import family_tree
import notebooks
import pytest

ROWS = family_tree.read()


def test_page_is_what_the_table_says():
    assert family_tree.TARGET.read_text(encoding="utf-8") == family_tree.page(), "run python tools/family_tree.py"
    assert family_tree.TARGET.relative_to(notebooks.ROOT).as_posix() in (notebooks.ROOT / "index.md").read_text(encoding="utf-8")


def test_ideas_are_children_of_earlier_ones_and_lead_to_chapters():
    years = {row["name"]: row["year"] for row in ROWS}
    assert len(years) == len(ROWS)
    for row in ROWS:
        assert (notebooks.CHAPTERS / f"{row['page']}.ipynb").exists(), row
        assert all(years[parent] < row["year"] for parent in row["parents"]), row


def test_every_chapter_about_networks_is_in_the_tree():
    chapters = {path.stem for path in notebooks.first_pages() if re.match(r"(0\d|1[0-2])_", path.name)}
    assert {row["page"] for row in ROWS} == chapters


@pytest.mark.parametrize("drawing", [family_tree.wide, family_tree.narrow])
def test_drawings_link_every_idea_and_every_line(drawing):
    text = drawing(ROWS)
    assert re.findall(r'href="chapters/(\w+)\.html"', text) == [row["page"] for row in ROWS]
    assert text.count("<path") == sum(len(row["parents"]) for row in ROWS)
    assert all(f'{row["name"]}, {row["year"]}: {row["idea"]}"' in text for row in ROWS)


def test_words_fit_and_boxes_do_not_overlap():
    assert [row["name"] for row in ROWS if not family_tree.fits(row)] == []
    places = list(family_tree.wide_places(ROWS).values())
    box, height = family_tree.COLUMNS["box"], family_tree.COLUMNS["height"]
    for i, (x, y) in enumerate(places):
        assert 0 <= x and x + box <= family_tree.WIDE
        assert all(abs(x - other_x) >= box or abs(y - other_y) >= height for other_x, other_y in places[:i])


def test_a_line_leaves_a_lane_at_once_where_another_idea_stands_below():
    names = {row["name"]: row for row in ROWS}
    assert family_tree.blocked(ROWS, "Network in Network", names["SqueezeNet"])
    assert not family_tree.blocked(ROWS, "GoogLeNet", names["ResNeXt"])
    assert not family_tree.blocked(ROWS, "Network in Network", names["GoogLeNet"])
