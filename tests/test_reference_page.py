"""The page that is made from docstrings is up to date and complete."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import reference


@pytest.fixture(scope="module")
def page() -> str:
    return reference.PAGE.read_text(encoding="utf-8")


def test_page_is_up_to_date(page):
    assert page == reference.as_page(), "run tools/reference.py"


def test_nothing_on_it_depends_on_the_machine(page):
    assert not any(mark in page for mark in (" at 0x", "site-packages", str(reference.ROOT)))


def test_everything_public_is_explained():
    for name in reference.MODULES:
        for title, thing in reference.public(reference.importlib.import_module(name)):
            assert (thing.__doc__ or "").strip(), f"{name}.{title} has no docstring"


@pytest.mark.parametrize("text, parts", [
    ("a: int, b: tuple[int, int] = (1, 2)", ["a: int", "b: tuple[int, int] = (1, 2)"]),
    ("a: str = ',', *, b", ["a: str = ','", "*", "b"]),
])
def test_arguments_are_split_outside_brackets_and_quotes(text, parts):
    assert reference.split_arguments(text) == parts
