"""Each explorer alone on a page, in a real browser, other hosts blocked: keyboard, mouse, themes, narrow screens."""

import csv
import io
from pathlib import Path

import pytest
import torch
from torch import nn

from browsing import NARROW, integers, type_into, violations
from cnnlib import create_model
from cnnlib.analysis import cost_table, receptive_field
from cnnlib.widgets import ConvolutionArithmetic, CostTableExplorer, ReceptiveFieldExplorer, StackDesigner
from explorers import EXAMPLES, example


def on_meta(name):
    with torch.device("meta"):
        return create_model(name)


def test_convolution_by_number_keyboard_and_mouse(show):
    page = show(ConvolutionArithmetic(7, 3, 1))
    answer = page.locator(".cx-formula strong")
    settings = [(7, 3, 1, 0, 1), (227, 11, 4, 0, 1), (224, 11, 4, 2, 1), (32, 5, 3, 4, 2)]
    for length, kernel, stride, padding, dilation in settings:
        for label, number in zip(("Input W", "Kernel F", "Stride S", "Padding P", "Dilation D"),
                                 (length, kernel, stride, padding, dilation)):
            type_into(page, label, number)
        layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation, device="meta")
        size = layer(torch.empty(1, 1, length, length, device="meta")).shape[-1]
        assert answer.inner_text() == str(size)
        assert f"output {size}\u00d7{size}" in page.get_by_role("status").inner_text()

    page.get_by_role("button", name="Back to the example").click()
    assert answer.inner_text() == "5"
    page.get_by_role("slider", name="Kernel F").focus()
    page.keyboard.press("ArrowRight")
    assert answer.inner_text() == "4"
    page.get_by_role("slider", name="Window row").focus()
    page.keyboard.press("End")
    assert "unit (3, 0) starts at input row 3, column 0" in page.get_by_role("status").inner_text()
    box = page.locator(".cx-drawing").bounding_box()
    page.mouse.click(box["x"] + 0.98 * box["width"] * 0.75, box["y"] + box["height"] / 2 + 5)
    assert "unit (3, 0)" not in page.get_by_role("status").inner_text()
    type_into(page, "Input W", 2)
    assert answer.inner_text() == "no output"
    assert "The kernel spans 4 values, but the padded input has only 2" in page.get_by_role("status").inner_text()


def test_cost_table_shows_the_numbers_of_the_analysis(show):
    page = show(CostTableExplorer("alexnet_227", "alexnet"))
    table = cost_table(on_meta("alexnet_227"), (3, 227, 227))

    def column(measure, place="tbody"):
        index = {"activations": 1, "params": 2, "macs": 3}[measure]
        return integers(page.locator(f".cx-scroll:first-child {place} tr").locator(
            f".cx-figure:nth-last-child({4 - index}) .cx-full").all_inner_texts())

    for measure in ("activations", "params", "macs"):
        assert column(measure) == [getattr(row, measure) for row in table]
        assert column(measure, "tfoot") == [getattr(table.total, measure)]

    page.get_by_role("button", name="Parameters").click()  # by mouse: largest first
    assert column("params") == sorted((row.params for row in table), reverse=True)
    assert page.locator("th[aria-sort=descending] button").evaluate("node => node === document.activeElement")
    page.keyboard.press("Enter")  # by keyboard: smallest first
    assert column("params") == sorted(row.params for row in table)
    page.keyboard.press("Space")  # forward order again
    assert column("params") == [row.params for row in table]

    page.get_by_label("multiply-adds").focus()
    page.keyboard.press("ArrowRight")
    assert column("macs") == [row.flops for row in table]
    page.get_by_label("stages").check()
    assert column("macs") == [stage.flops for stage in table.stages()]
    page.get_by_label("layers").check()
    page.get_by_label("Name or kind contains").press_sequentially("conv2d")
    convolutions = [row for row in table if row.kind == "Conv2d"]
    assert column("params") == [row.params for row in convolutions]
    assert f"{len(convolutions)} of {len(table)} layers" in page.get_by_role("status").inner_text()

    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename == "alexnet_227_3x227x227.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(row["layer"], int(row["flops"])) for row in rows] == [(row.name, row.flops) for row in convolutions]

    page.get_by_role("button", name="Back to the example").click()
    page.get_by_label("Beside it").select_option("alexnet at 3x224x224")
    assert page.locator(".cx-scroll").count() == 2
    theirs = cost_table(on_meta("alexnet"), (3, 224, 224)).total
    assert f"{theirs.params / table.total.params:#.3g} times the parameters" in page.get_by_role("status").inner_text()
    page.get_by_label("KB, MB").check()
    assert "1.162 MB" in page.locator(".cx-scroll").first.inner_text()  # 96x55x55 values of 4 bytes


def test_receptive_field_walks_by_keyboard_and_mouse(show):
    explorer = ReceptiveFieldExplorer("alexnet_227")
    page = show(explorer)
    fields = receptive_field(on_meta("alexnet_227"), (3, 227, 227))

    def fact(name):
        return page.locator(f"[data-fact={name}]").inner_text()

    page.get_by_role("slider", name="Layer", exact=True).focus()
    page.keyboard.press("Home")
    for layer in explorer.layers:
        field = fields[layer["name"]]
        size, stride, start = field.size[0], field.stride[0], field.start[0]
        assert fact("field") == f"{size} \u00d7 {size} pixels"
        assert fact("start") == str(start).replace("-", "\u2212")
        if field.units != (1, 1):
            assert fact("stride") == f"{stride} pixels"
            assert fact("overlap").startswith(f"{size - stride} of {size} columns")
        page.keyboard.press("ArrowRight")

    page.get_by_label("Layer, in forward order").select_option("stages.1.2.pool")
    box = page.locator(".cx-drawing").bounding_box()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    assert fact("span") == "rows \u221264 to 130, columns \u221264 to 130"
    assert fact("outside") == f"{100 * (1 - (131 / 195) ** 2):.0f}% of the field"
    page.get_by_role("slider", name="Unit column").focus()
    page.keyboard.press("End")
    assert fact("span") == "rows \u221264 to 130, columns 96 to 290"
    said = "has a field of 195\u00d7195 pixels; of the image's 227\u00d7227 it sees 131\u00d7131."
    assert said in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="Back to the example").click()
    assert "unit (3, 3)" in page.get_by_role("status").inner_text()


def test_stack_designer_by_keyboard_and_mouse(show):
    page = show(StackDesigner("AlexNet's beginning"))

    def check(*layers, side=227):
        network = nn.Sequential(*layers)
        table = cost_table(network, (3, side, side))
        field = list(receptive_field(network, (3, side, side)).values())[-1]
        assert [integers([text.split()[0]])[0] for text in page.locator("[data-result=params]").all_inner_texts()] == \
            [row.params for row in table]
        assert integers([page.locator("[data-versus=macs-stack]").inner_text()]) == [table.total.macs]
        size = field.size[0]
        assert f"sees {size}\u00d7{size}" in page.get_by_role("status").inner_text()
        channels, height, width = table[-1].output_shape
        large = nn.Conv2d(3, channels, size, device="meta")
        one = integers([page.locator("[data-versus=params-one]").inner_text()])
        assert one == [sum(p.numel() for p in large.parameters())]

    with torch.device("meta"):
        stack = [nn.Conv2d(3, 96, 11, 4), nn.MaxPool2d(3, 2), nn.Conv2d(96, 256, 5, padding=2), nn.MaxPool2d(3, 2)]
        third = nn.Conv2d(256, 256, 3, padding=1)
    check(*stack)
    page.get_by_role("button", name="Add convolution").click()
    check(*stack, third)
    page.get_by_role("button", name="Remove layer 4").focus()
    page.keyboard.press("Enter")
    check(*stack[:3], third)
    assert page.locator(":focus").get_attribute("aria-label") == "Remove layer 4"
    page.get_by_role("button", name="Move layer 2 up").press("Space")
    with torch.device("meta"):
        check(nn.MaxPool2d(3, 2), stack[0], stack[2], third)
    page.get_by_label("Kernel of layer 1").fill("15")
    page.get_by_label("Input height").fill("10")
    assert "Layer 1: The window of 15 does not fit into 10 values" in page.get_by_role("status").inner_text()
    page.get_by_label("Stack", exact=True).select_option("three 3x3")
    assert integers(page.locator("[data-versus^=params]").all_inner_texts()) == [27 * 64**2, 49 * 64**2]
    page.get_by_label("Count biases").check()
    assert integers(page.locator("[data-versus^=params]").all_inner_texts()) == [27 * 64**2 + 3 * 64, 49 * 64**2 + 64]


@pytest.mark.parametrize("name", EXAMPLES)
def test_explorers_are_accessible_narrow_follow_the_theme_and_clean_up(show, name):
    page = show(example(name), "dark", NARROW)
    for theme, width in (("dark", NARROW), ("light", 1280)):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        # Everything that takes a click can be reached and is at least as large as text.
        assert page.locator(".cx :is(button, select, input):visible").count() >= 3
        assert violations(page) == []
    frame = page.locator("section.cx")

    def paper():
        return frame.evaluate("node => getComputedStyle(node).backgroundColor")

    light = paper()
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert paper() != light
    assert page.evaluate("""async () => {
      const script = document.querySelector('script[type$="widget-state+json"]');
      const {state} = JSON.parse(script.textContent);
      const one = Object.values(state).map((entry) => entry.state).find((entry) => entry._esm);
      const url = URL.createObjectURL(new Blob([one._esm], {type: "text/javascript"}));
      const listeners = new Set();
      const model = {get: (key) => one[key], set() {}, save_changes() {},
        on: (event, callback) => listeners.add(callback), off: (event, callback) => listeners.delete(callback)};
      const el = document.createElement("div");
      const cleanUp = (await import(url)).default.render({model, el});
      const [filled, listening] = [el.children.length, listeners.size];
      cleanUp();
      return [filled, listening, el.children.length, listeners.size];
    }""") == [1, 1, 0, 0]


def test_two_views_share_one_model(tab):
    tab.show(ConvolutionArithmetic(7, 3, 1))
    page_file, = tab.folder.glob(tab.page.url.rpartition("/")[2])
    text = page_file.read_text(encoding="utf-8")
    start = text.index("<div><script")
    view = text[start:text.index("</div>", start) + 6]
    page_file.write_text(text.replace(view, view + view), encoding="utf-8")
    page = tab.open(f"{tab.page.url}?")
    page.get_by_role("slider", name="Stride S").first.press("ArrowRight")
    assert page.locator(".cx-formula strong").all_inner_texts() == ["3", "3"]
    assert tab.rest() == []
