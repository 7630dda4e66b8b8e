"""Limits of time, quick collecting, the order of tests on several workers, and the fixtures of tests with a browser.

No test can hang: pyproject.toml limits each, and here the slow ones get more. With `--dist loadfile` the longest files
begin, and pages of the book go one by one to whichever worker is free, so that none waits at the end while another
still has a long file. Files that build and count every network go to one worker, which does it once.
"""

import contextlib
import gc
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from browsing import Tab
from chromium import Server, find, launch

SLOW, PAGES = 3600, 1800  # seconds; the first test of the pages builds the book
ALL_NETWORKS = ("test_models", "test_reference", "test_analysis_cost", "test_zoo_table")  # share what zoo.py remembers
LONGEST = ("test_adding", *ALL_NETWORKS, "test_pages", "test_chapters", "test_house", "test_explorers",
           "test_explorer_pages")
ONE_BY_ONE = ("test_pages",)  # files whose tests share nothing that is costly to make again


def pytest_configure(config):
    """hypothesis tries the same examples everywhere, and measures no time."""
    gc.disable()  # while modules are imported and tests collected, which leaves nothing to free
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        with contextlib.suppress(ImportError):
            from hypothesis import HealthCheck, settings

            patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
            settings.register_profile("any machine", derandomize=True, **patient)
            settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector, obj):
    """Nothing is made of a slow test, with its many parameters, that `-m "not slow"` would leave out again."""
    if collector.config.option.markexpr == "not slow":
        if any(mark.name == "slow" for mark in getattr(obj, "pytestmark", ())):
            return []


def pytest_collection_finish():
    gc.freeze()  # what is there now stays, and is not looked through again
    gc.enable()


def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("timeout"):
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.timeout(SLOW))
            elif "book" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(PAGES))
    place = {f"{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class LongestFirst(LoadFileScheduling):
        def _split_scope(self, nodeid):
            name = nodeid.partition(".py::")[0].rpartition("/")[2]
            if name in ALL_NETWORKS:
                return "all networks"
            return nodeid if name in ONE_BY_ONE else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # in the order of the items, not of their number in a file
    return LongestFirst(config, log)


def give_up(message):
    """Without a browser the page tests are skipped, except where CI is set."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


@pytest.fixture(scope="module")
def browser():
    if not (path := find()):
        give_up("page tests need a browser: apt-get install chromium-headless-shell, or set CHROMIUM to one")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = launch(playwright, path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def serve():
    """`serve(folder)`: the address of a server of the folder."""
    servers = []

    def start(folder):
        servers.append(Server(folder))
        return servers[-1].address

    yield start
    with ThreadPoolExecutor(max(len(servers), 1)) as pool:  # each waits until its loop looks up
        list(pool.map(Server.close, servers))


@pytest.fixture(scope="module")
def tab(browser, serve, tmp_path_factory):
    """One page for all tests of a file that show explorers."""
    tab = Tab(browser, serve, tmp_path_factory.mktemp("explorers"))
    yield tab
    tab.close()


@pytest.fixture
def show(tab):
    """`show(explorer)`: the page with it; afterwards, that nothing went wrong on it."""
    tab.rest()  # what a test that failed has left
    yield lambda explorer, theme="light", width=1280: tab.show(explorer, theme=theme, width=width)
    assert tab.rest() == []
