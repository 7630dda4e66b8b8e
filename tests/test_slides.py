"""Slides: every picture, formula and question of a chapter, in a file that needs no other and no network."""

import io
import re

import notebooks
import pypdf
import pytest
import slides

CHAPTER = notebooks.CHAPTERS / "07_resnet.ipynb"


def plain(tex, display):
    return f"<i>{tex}</i>"


def kinds(found):
    return [kind.partition(" ")[0] for kind, _, _ in found]


@pytest.mark.parametrize("path", [path for path in notebooks.chapter_files() if re.match(r"\d\d_(?!.*_depth)", path.name)],
                         ids=lambda path: path.stem)
def test_slides_hold_every_picture_formula_explorer_and_question(path):
    notebook = notebooks.read(path)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    data = [output.data for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs if "data" in output]
    questions = [one for one in data if one.get("text/plain", "").startswith("Question(")]
    shown = kinds(found := slides.slides(notebook, plain))
    assert shown[0] == "title" and found[0][1] == notebook.cells[0].source.partition("\n")[0][2:] and found[0][2]
    assert shown.count("formula") == text.count("$$") // 2
    assert shown.count("picture") == sum("image/png" in one or "<svg" in one.get("text/html", "") for one in data)
    assert shown.count("question") == shown.count("answer") == len(questions) > 0
    explorers = [body for kind, _, body in found if kind == "explorer"]
    together = re.findall(r"m?e+", "".join("m" if cell.cell_type == "markdown" else "".join(
        "e" for one in cell.get("outputs", []) if notebooks.WIDGET_VIEW in one.get("data", {}) and "Question(" not in one.data["text/plain"])
        for cell in notebook.cells))  # two below one text have one slide
    assert len(explorers) == len(together) and len(set(explorers)) == len(explorers)
    page = notebooks.ROOT / "_build" / "html" / "chapters" / f"{path.stem}.html"
    sections = [re.search('PAGE#([^"]*)', body)[1] for body in explorers]
    assert not page.exists() or all(f'<section id="{section}">' in page.read_text(encoding="utf-8") for section in sections)
    assert shown.count("summary") == 1 and all(body for _, _, body in found)
    assert not [body for _, _, body in found if "<details>" in body or "<a " in body.replace('<a href="PAGE#', "")]


def test_a_question_keeps_its_answer_for_the_next_slide():
    found = slides.slides(notebooks.read(CHAPTER), plain)
    first = kinds(found).index("question")
    (_, heading, question), (_, same, answer) = found[first:first + 2]
    assert heading == same == "1. Which number tells?" and "Before you call it overfitting" in question
    assert "<details>" not in question + answer and "<li>the training error</li>" in question
    assert "<li class=right>the training error</li>" in answer and answer.count("class=right") == 1
    assert "Overfitting: low training error" in answer and "Overfitting: low" not in question
    shape = [body for kind, heading, body in found if heading == "3. Follow the shape"]
    assert "512 × 28 × 28" in shape[1] and "512 ×" not in shape[0]


def test_a_slide_is_told_whole_and_once():
    """What leads over to a result that the chapter computes, the points of a list, and no sentence twice."""
    found = slides.slides(notebooks.read(CHAPTER), plain)
    [table] = [body for kind, heading, body in found if kind == "table" and heading.startswith("Problem")]
    assert table.index("Could it be that doing <em>nothing</em>") < table.index("always answers zero") < table.index("<table>")
    bodies = [body for kind, heading, body in found if heading == "Idea: learn what to add"]
    assert sum("is the block's input" in body.replace("\u2019", "'") for body in bodies) == 1
    [points] = [body for kind, _, body in found if kind == "points"]
    assert points.count("<li>") == 3 and "<strong>It is free.</strong> Adding" in points and len(points) < 1000
    assert not [body for _, _, body in found if "You need" in body]


def test_a_list_is_told_with_all_its_items():
    """Those whose first bold word has an article, too; and of few items more than the first sentence."""
    items = slides._points("- a **bottleneck**: one.\n- **Gradients.** Leave it out. Then " + "it is told " * 15 + "why.\n- plain\n").splitlines()
    assert len(items) == 2 and items[0] == "- a **bottleneck**: one." and items[1].endswith("why.")


@pytest.mark.parametrize("size, kind", [((300, 800), "picture tall"), ((300, 400), "picture narrow"), ((400, 300), "picture beside"), ((800, 300), "picture")])
def test_a_picture_stands_where_it_can_be_large(size, kind):
    assert slides._picture(*size) == kind


# Of each slide: whether all of it is seen, and the size of its picture, if it is a slide of one.
PICTURES = """(count) => Array.from({length: count}, (_, number) => {
  show(number);
  const shown = (node) => node.checkVisibility({visibilityProperty: true}) && node.getClientRects().length;
  const [slide, more] = [...document.querySelectorAll("section")].filter(shown);
  if (more) throw new Error("two slides at once");
  const pictures = [...slide.querySelectorAll("figure :is(img, svg.nd)")].filter(shown);
  const box = slide.className.includes("picture") && pictures.length === 1 ? pictures[0].getBoundingClientRect() : null;
  return [slide.scrollHeight <= slide.clientHeight + 1, box && [box.width, box.height]];
})"""


def test_a_picture_has_the_room_that_its_text_leaves(browser, deck):
    """In the hall's proportions and in a projector's: it reaches almost to an edge, and is not below half the height for a long text."""
    page = browser.new_page()
    page.goto(deck[0].as_uri())
    for width, height in ((1280, 720), (1024, 768)):
        page.set_viewport_size({"width": width, "height": height})
        seen = page.evaluate(PICTURES, deck[1])
        assert len(seen) == deck[1] and any(box for _, box in seen)
        for number, (whole, box) in enumerate(seen, 1):
            assert whole, (width, number)
            assert not box or box[0] > 0.7 * width or box[1] > 0.45 * height, (width, number, box)
    page.close()


@pytest.mark.parametrize("truth, text", [(73728.0, "73,728"), (0.0025, "0.0025"), (-2.0, "-2"), ([6.0, 14.0], "6 × 14"),
                                         (["CONV1", "FC6"], "CONV1, then FC6"), ("the stem", "the stem")])
def test_answers_read_as_text(truth, text):
    assert slides._answer({"truth": truth}) == text


def test_large_tables_stay_on_the_page():
    def notebook(rows):
        table = "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * rows
        output = notebooks.nbformat.v4.new_output("display_data", {"text/markdown": table})
        return notebooks.nbformat.v4.new_notebook(cells=[notebooks.nbformat.v4.new_markdown_cell("# Rows"),
                                                         notebooks.nbformat.v4.new_code_cell("", outputs=[output])])

    assert kinds(slides.slides(notebook(slides.ROWS), plain)) == ["title", "table"]
    assert kinds(slides.slides(notebook(slides.ROWS + 1), plain)) == ["title"]


@pytest.fixture(scope="module")
def deck(browser, tmp_path_factory):
    """The file of a chapter, as it is made, and the number of its slides."""
    notebook = notebooks.read(CHAPTER)
    page = browser.new_page()
    math = slides.mathjax(page)
    path = tmp_path_factory.mktemp("slides") / "07_resnet.html"
    path.write_text(slides.deck(path.stem, notebook, math), encoding="utf-8")
    with pytest.raises(ValueError, match="does not understand"):
        math(r"\nosuchcommand{x}", False)
    page.close()
    return path, len(slides.slides(notebook, plain))


def test_a_deck_is_one_file_that_names_no_other_host(deck):
    text = deck[0].read_text(encoding="utf-8")
    assert not re.search(r"https?:", text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", ""))
    assert set(re.findall(r'\b(?:href|src)="?(?!data:)([^">#]+)', text)) == {"../html/chapters/07_resnet.html"}
    assert text.count('<svg class="formula"') == 1 and "$" not in re.sub(r"<script>.*?</script>|\$\{", "", text, flags=re.S)


@pytest.mark.parametrize("theme, width, height", [("light", 1280, 720), ("dark", 390, 844)])
def test_a_deck_runs_from_a_file(browser, deck, theme, width, height):
    path, count = deck
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme, has_touch=True)
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
    page.goto(path.as_uri())
    number = page.locator("output")
    assert number.inner_text() == f"1 / {count}" and page.locator("html").get_attribute("data-theme") == theme
    for key, after in (("ArrowLeft", 1), ("ArrowRight", 2), (" ", 3), ("PageUp", 2), ("End", count), ("ArrowRight", count), ("Home", 1)):
        page.keyboard.press(key)
        assert number.inner_text() == f"{after} / {count}", key
    for _ in range(count):
        assert page.locator("section:visible").count() == 1
        slide = page.locator("section:visible")
        assert slide.evaluate("node => node.scrollWidth <= node.clientWidth"), slide.inner_text()
        assert width < 700 or slide.evaluate("node => node.scrollHeight <= node.clientHeight + 1"), slide.inner_text()
        page.keyboard.press("ArrowRight")
    if width > 700:  # a slide that is far too long
        page.evaluate("() => { slides[0].insertAdjacentHTML('beforeend', '<p>One more line of text.</p>'.repeat(22)); show(0); }")
        assert page.evaluate("() => slides[0].scrollHeight <= slides[0].clientHeight + 1 && parseInt(slides[0].style.fontSize) < 95")
    page.get_by_role("button", name="Light or dark").click()
    assert page.locator("html").get_attribute("data-theme") != theme
    page.keyboard.press("Home")
    page.evaluate("""() => { for (const [kind, x] of [["touchstart", 300], ["touchend", 100]]) {
      const touch = new Touch({identifier: 1, target: document.body, clientX: x, clientY: 200});
      document.body.dispatchEvent(new TouchEvent(kind, {touches: kind === "touchend" ? [] : [touch], changedTouches: [touch], bubbles: true}));
    } }""")
    assert number.inner_text() == f"2 / {count}" and page.url.endswith("#2")
    page.close()
    assert problems == []


def test_a_deck_prints_one_slide_a_page(browser, deck):

    path, count = deck
    page = browser.new_page()
    page.goto(path.as_uri())
    pages = pypdf.PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True))).pages
    page.close()
    assert len(pages) == count
    assert {(round(float(one.mediabox.width)), round(float(one.mediabox.height))) for one in pages} == {(960, 540)}
    assert "Follow the shape" in "".join(one.extract_text() for one in pages)
