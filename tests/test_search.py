"""Search finds what people type: the book's own search, asked in a browser, names the right page among its first three answers."""

import json
import sys
from types import SimpleNamespace

import notebooks
import pytest
from docutils import nodes
from sphinx import addnodes

sys.path.insert(0, str(notebooks.ROOT / "_ext"))
import subjects

HTML = notebooks.ROOT / "_build" / "html"
TYPED = {  # what is typed -> where it is explained, the page's number or name
    "skip connection": "07", "skip connections": "07", "residual": "07", "Residual block": "07", "shortcut": "07", "FLOPs": "01", "flops": "01",
    "receptive field": "01", "Grad-CAM": "04", "grad cam": "04", "batch norm": "01", "BatchNorm": "01", "batch normalization": "01", "1x1 convolution": "06",
    "1x1": "06", "transfer learning": "14", "fine tuning": "14", "U-Net": "16", "unet": "16", "segmentation": "16", "quantization": "17", "dropout": "03",
    "depthwise separable": "10", "vanishing gradients": "07", "squeeze excitation": "08", "neural architecture search": "11", "ImageNet": "02",
    "data augmentation": "03", "mixed precision": "15", "bottleneck": "06", "dilated convolution": "16", "max pooling": "01", "padding": "01",
    "inception": "06", "densenet": "09", "mobilenet": "10", "efficientnet": "11", "convnext": "12", "vit": "12", "onnx": "17", "adversarial": "17",
    "label smoothing": "15", "stochastic depth": "08", "pretrained": "14", "saliency": "04", "object detection": "14", "resnet50": "07", "vgg16": "05",
    "overfitting": "03", "He initialization": "05", "kaiming": "05", "learning rate": "15", "top-5": "02", "global average pooling": "06",
    "pareto": "13", "latency": "10", "slides": "teaching", "gradient checkpointing": "09", "weight decay": "03", "layer norm": "01",
}
ASK = "(query) => Search._performSearch(...Search._parseQuery(query)).reverse().map(([page, title, anchor]) => page + anchor)"


@pytest.fixture(scope="module")
def search(browser, serve):
    """`search(words)`: the answers of the built book's search, best first, as pages and sections."""
    if not (HTML / "searchindex.js").exists():
        pytest.skip("needs the built book: make book")
    page = browser.new_page()
    page.goto(f"{serve(HTML)}/search.html")
    page.wait_for_function("() => typeof Search !== 'undefined' && Search._index")
    yield lambda words: page.evaluate(ASK, words)
    page.close()


@pytest.mark.parametrize("words", TYPED)
def test_the_first_three_answers_hold_the_right_page(search, words):
    answers = search(words)
    assert any(answer.startswith(f"chapters/{TYPED[words]}") for answer in answers[:3]), answers[:5]


def test_every_subject_is_found_at_its_place(search):
    lost = [(subject, key) for key, found in subjects.TABLE.items() for subject in found
            if not any(answer.startswith(f"chapters/{key}") for answer in search(subject)[:3])]
    assert lost == []


def test_a_section_is_named_by_its_beginning():
    assert subjects.place("idea", ["problem-x", "idea-learn", "idea"]) == "idea"
    assert subjects.place("idea", ["problem-x", "idea-learn"]) == "idea-learn"
    with pytest.raises(LookupError, match="'ide-x'"):
        subjects.place("ide-x", ["idea"])


@pytest.mark.parametrize("sections, expected", [(["idea-a"], ("skip", "idea-a")), (["other"], None)])
def test_a_page_is_given_its_subjects_alone(monkeypatch, caplog, sections, expected):
    monkeypatch.setattr(subjects, "TABLE", {"a#idea": ["skip"], "b": ["other"]})
    document = nodes.document(None, None)
    document += nodes.section(ids=sections)
    said = []
    monkeypatch.setattr(subjects.logging, "getLogger", lambda name: SimpleNamespace(warning=lambda text, location: said.append((text, location))))
    transform = subjects.Subjects.__new__(subjects.Subjects)
    transform.document = document
    monkeypatch.setattr(subjects.Subjects, "env", SimpleNamespace(docname="chapters/a"))
    transform.apply()
    entries = [entry[1:4] for node in document.findall(addnodes.index) for entry in node["entries"]]
    assert entries == ([(*expected, "main")] if expected else [])
    assert [location for _, location in said] == ([] if expected else ["chapters/a"])


def test_no_subject_stands_twice():
    words = [subject.lower() for found in subjects.TABLE.values() for subject in found]
    assert sorted(set(words)) == sorted(words), json.dumps([word for word in words if words.count(word) > 1])
