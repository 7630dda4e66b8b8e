"""No test can hang: pyproject.toml limits each, and here the slow ones get more."""

import pytest

SLOW, PAGES = 3600, 1800  # seconds; the first test of the pages builds the book


def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("timeout"):
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.timeout(SLOW))
            elif "book" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(PAGES))
