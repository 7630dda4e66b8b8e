"""The course on the book names questions, exercises and explorers that its chapters have."""

import re

import notebooks
import pytest

TEXT = (notebooks.CHAPTERS / "teaching.md").read_text(encoding="utf-8")
LECTURES = dict(re.findall(r"^## (Lecture \d+)[^\n]*\n(.*?)(?=^## )", TEXT, re.M | re.S))


def chapters(lecture):
    """The text and the explorers of the chapters that a lecture rests on."""
    pages = re.search(r"^Pages: (.*)$", LECTURES[lecture], re.M)[1]
    cells = [cell for name in re.findall(r"\((\w+\.ipynb)\)", pages) for cell in notebooks.read(notebooks.CHAPTERS / name).cells]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    shown = "\n".join(output.get("data", {}).get("text/plain", "") for cell in cells for output in cell.get("outputs", []))
    return text, shown


def test_ten_lectures_cover_the_chapters_in_their_order():
    """Every one up to the last; what is added behind it is no part of the course until somebody makes it one."""
    assert list(LECTURES) == [f"Lecture {number}" for number in range(1, 11)]
    pages = re.findall(r"(\d\d_\w+)\.ipynb", "\n".join(re.findall(r"^Pages: .*$", TEXT, re.M)))
    assert pages == [path.stem for path in notebooks.first_pages()][:len(pages)] and len(pages) >= 17


@pytest.mark.parametrize("lecture", LECTURES)
def test_what_a_lecture_asks_assigns_and_turns_is_there(lecture):
    text, shown = chapters(lecture)
    headings = {re.sub(r"^\d+\. ", "", heading) for heading in re.findall(r"^### (.+)$", text, re.M)}
    parts = dict(re.findall(r"^- \*\*(\w+)\*\* (.*?)(?=\n- \*\*|\Z)", LECTURES[lecture], re.M | re.S))
    assert set(parts) == {"Show", "Turn", "Ask", "Assign"}
    asked = re.findall(r"\*([^*]+?)\*", parts["Ask"] + parts["Assign"])
    assert asked and not [name for name in asked if not any(heading == name or heading.startswith(f"{name}:") for heading in headings)]
    explorers = re.findall(r"`(\w+)`", parts["Turn"])
    assert explorers and not [name for name in explorers if f"{name}(" not in shown]
