"""First visits of a phone: what they weigh, and when the page answers; measured as tools/visits.py does."""

import pytest
import visits
from browsing import bare_page
from chromium import Server
from test_light_pages import CHAPTER, HTML, LANDING

from cnnlib.widgets import ConvolutionArithmetic


def test_a_visit_counts_compressed_bytes_and_the_first_answer(browser, tmp_path):
    bare_page(tmp_path, ConvolutionArithmetic(7, 3, 1))
    page = tmp_path / "index.html"
    page.write_text(page.read_text().replace("</main>", f"<p>{'The same words. ' * 10_000}</p></main>"))
    server = Server(tmp_path, visits.Compressing)
    row = visits.visit(browser, server.address, "index", rate=1)
    server.close()
    assert 10 < row["kB"] < 120 < page.stat().st_size / 1000 and row["requests"] == 2 and row["elsewhere"] == 0
    assert 0 < row["paint"] and 0 < row["ready"] < row["answered"] and row["typeset"] == 0
    assert 0 < row["work"] < 5000


def test_a_slowed_processor_answers_later(browser, tmp_path):
    """The page's own thread has as much to do; it is done later."""
    (tmp_path / "page.html").write_text("""<!doctype html><html lang="en"><head><link rel="icon" href="data:,"></head><body><p>Words</p>
      <div class="cx"><button>Answer</button></div><script type="application/vnd.jupyter.widget-view+json">{}</script><div id="late"></div><script>
      requestAnimationFrame(() => setTimeout(() => { let sum = 0; for (let i = 0; i < 2e7; i++) sum += i % 7; late.dataset.ready = sum; }));
      </script></body></html>""")
    server = Server(tmp_path, visits.Compressing)
    ready = [min(visits.visit(browser, server.address, "page", rate)["ready"] for _ in range(2)) for rate in (1, 6)]
    server.close()
    assert ready[1] > 1.5 * ready[0]


def test_the_middle_of_visits_is_a_row_of_the_table():
    row = {name: 1 for name in visits.COLUMNS} | {"page": "a"}
    found = visits.middle([row, row | {"kB": 3, "work": 0.4, "paint": 5}, row | {"paint": 9}])
    assert list(sorted(found)) == sorted(visits.COLUMNS)
    assert (found["page"], found["kB"], found["work"], found["paint"]) == ("a", 3, 0, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", visits.contents())
def test_first_visits_are_light(browser, name):
    """As a browser counts them on a phone, images that it fetches ahead of the fold included: those may bring a chapter to a little more."""
    if not HTML.exists():
        pytest.skip("needs the built book: make book")
    server = Server(HTML, visits.Compressing)
    row = visits.visit(browser, server.address, name, rate=1)
    server.close()
    assert row["elsewhere"] == 0
    assert row["kB"] * 1000 < (LANDING if name == "index" else CHAPTER + 100_000)
