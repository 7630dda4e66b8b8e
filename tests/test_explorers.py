"""What explorers do in a browser beyond answering: alone and beside others, by touch, in forced colours; networks alive, questions."""

import json
import re
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cnnlib.widgets import ConvolutionArithmetic, CostTableExplorer, FollowPhotograph, NormalizationAxes, Question
from cnnlib.widgets import follow
from cnnlib.widgets.base import STATIC
from chromium import QuietHandler, Server
from explorers import EXAMPLES, example
from browsing import NARROW, Tab, Watched, bare_page, picture, type_into, violations

# Computed styles in each explorer, as one text: of the first three elements of each name and class within one parent's, which no
# sheet could tell apart. Sizes in pixels are left out, they follow from the rest.
STYLES = """() => {
  const left = /^(width|height|top|right|bottom|left|inset-.*|inline-size|block-size|perspective-origin|transform-origin|.*-color)$/;
  const names = [...getComputedStyle(document.body)].filter((name) => !left.test(name)).sort();
  const bare = (text) => text.replace(/cx-[0-9a-z]+-[0-9]+/g, ''), kind = (one) => one.tagName + bare(one.getAttribute('class') ?? '');
  return [...document.querySelectorAll('section.cx')].map((node) => {
    const seen = {}, few = [...node.querySelectorAll('*')].filter((one) => {
      const place = kind(one.parentNode) + '>' + kind(one);
      return (seen[place] = (seen[place] ?? 0) + 1) <= 3;
    });
    return bare([node, ...few].map((one) => {
      const style = getComputedStyle(one);
      return one.tagName + names.map((name) => name + '=' + style.getPropertyValue(name)).join(';');
    }).join('|')).replace(/[0-9]+(\\.[0-9]+)?px/g, 'px');
  });
}"""


TELL = {"texts": "texts", "digests": """Promise.all(texts.map(async (text) =>
  [...new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)))].join()))"""}


def test_style_sheets_do_not_touch_each_other(tab):
    """Each explorer alone, and all of them on a page in two orders, so that every sheet comes before and after every other."""
    def seen(order, of="digests"):
        page = tab.show(*map(example, order))
        page.wait_for_function("() => document.getAnimations().every((one) => one.playState !== 'running')")
        return page.evaluate(f"async () => {{ const texts = ({STYLES})(); return await ({TELL[of]}); }}")

    alone = {name: seen([name])[0] for name in EXAMPLES}
    assert len(set(alone.values())) > len(EXAMPLES) / 2
    for order in (list(EXAMPLES), list(EXAMPLES)[::-1]):
        for name, found in zip(order, seen(order), strict=True):
            if found != alone[name]:
                texts = seen([name], "texts")[0], seen(order, "texts")[order.index(name)]
                one, other = next(pair for pair in zip(*(text.split("|") for text in texts)) if pair[0] != pair[1])
                different = [pair for pair in zip(one.split(";"), other.split(";")) if pair[0] != pair[1]]
                raise AssertionError(f"{name}, alone and beside others: {one.split('=')[0]}, {different}")
    assert tab.rest() == []


FAR = "<style>.explorer { margin-bottom: 4000px }</style></head>"  # between an explorer and the next


def test_the_first_explorer_starts_at_once_and_others_as_they_come_near(browser, serve, tmp_path):
    """On a page that gives them no turn; on another all stand in the end, whatever the reader does."""
    bare_page(tmp_path, *(NormalizationAxes() for _ in range(4)))
    index, address = tmp_path / "index.html", serve(tmp_path)
    index.write_text(index.read_text().replace("</head>", FAR))
    busy = browser.new_page(viewport={"width": 390, "height": 800})
    busy.add_init_script("const later = setTimeout; window.setTimeout = (work, delay) => delay === undefined ? 0 : later(work, delay);")
    busy.goto(f"{address}/index.html")
    stand = "() => [...document.querySelectorAll('.explorer')].map((one) => 'ready' in one.dataset)"
    busy.wait_for_selector(".explorer[data-ready]")
    busy.wait_for_timeout(500)
    assert busy.evaluate(stand) == [True, False, False, False]
    heights = busy.evaluate("() => [...document.querySelectorAll('.explorer')].map((one) => one.offsetHeight)")
    assert min(heights) > 200, "room for those that have not begun"
    busy.locator(".explorer").nth(2).evaluate("(node) => node.scrollIntoView()")
    busy.wait_for_selector(".explorer[data-ready] >> nth=1", timeout=20_000)
    assert busy.evaluate(stand) == [True, False, True, False]
    busy.close()
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    page.wait_for_function("() => document.querySelectorAll('.explorer[data-ready]').length === 4")
    page.close()


def test_a_page_that_comes_in_pieces_has_its_explorers(browser, tmp_path):
    """Cut within the place of an explorer, where its script has a part of the text alone."""
    class Slow(QuietHandler):
        def copyfile(self, source, outputfile):
            if not self.path.endswith("index.html"):
                return super().copyfile(source, outputfile)
            content = source.read()
            cut = content.rindex(b'"model_id"')
            for part in (content[:cut], content[cut:]):
                outputfile.write(part)
                outputfile.flush()
                time.sleep(0.4)

    bare_page(tmp_path, NormalizationAxes())
    server = Server(tmp_path, Slow)
    watched = Watched(browser, server.address)
    watched.page.set_default_timeout(20_000)
    page = watched.open(f"{server.address}/index.html")
    assert page.locator("section.cx").count() == 1
    assert watched.close() == []
    server.close()


def test_own_style_sheets_are_nested_in_their_explorer():
    for path in STATIC.glob("*.css"):
        if path.stem != "explorers":
            text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S).strip()
            assert re.match(r"\.cx(\.cx-[\w]+|:is\([^)]*\)){2} \{", text) and text.endswith("\n}"), path.name
            assert all(line.startswith(("  ", "}", ".cx")) or not line for line in text.splitlines()), path.name


@pytest.mark.parametrize("name", ["block", "inception", "map", "stack", "cost"])
def test_notebooks_that_sort_names_change_nothing(tab, name):
    found = []
    for sort_keys in (False, True):
        page = tab.show(example(name), sort_keys=sort_keys)
        found.append(re.sub(r"cx-\w+-\d+", "", picture(page.locator("section.cx"))))
    assert tab.rest() == [] and found[0] == found[1]


def swipe(page, box, dx, dy):
    """A finger from the middle of a box, in steps slow enough for the browser to see where it goes."""
    client = page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for i in range(1, 11):
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x + dx * i / 10, "y": y + dy * i / 10}]})
        page.wait_for_timeout(20)
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_swipe_scrolls_and_turns_no_slider(browser, serve, tmp_path):
    bare_page(tmp_path, ConvolutionArithmetic(7, 3, 1))
    address = serve(tmp_path)
    context = browser.new_context(viewport={"width": NARROW, "height": 500}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{address}/index.html")
    slider = page.get_by_role("slider", name="Kernel F")
    slider.wait_for()
    swipe(page, slider.bounding_box(), 3, -150)
    page.wait_for_function("window.scrollY > 50")
    page.wait_for_timeout(200)  # in which a slider could still turn
    assert slider.input_value() == "3" and page.get_by_label("Kernel F").first.input_value() == "3"
    swipe(page, slider.bounding_box(), 60, 0)  # along the slider it turns
    page.wait_for_function("node => Number(node.value) > 10", arg=slider.element_handle())
    context.close()


def test_what_is_chosen_shows_in_forced_colours(browser, serve, tmp_path):
    bare_page(tmp_path, CostTableExplorer("alexnet_227"))
    address = serve(tmp_path)
    page = browser.new_page(forced_colors="active")
    page.goto(f"{address}/index.html")
    page.locator(".cx-radio").first.wait_for()
    chosen, other = (page.locator(f".cx-radio input{state} + span").first.evaluate("node => getComputedStyle(node).backgroundColor")
                     for state in (":checked", ":not(:checked)"))
    assert chosen != other
    bar = page.locator("tbody .cx-bar-macs").first.evaluate("node => getComputedStyle(node).backgroundColor")
    assert bar != page.locator(".cx").evaluate("node => getComputedStyle(node).backgroundColor")
    page.close()


def test_sliding_ends_with_the_way_back_and_is_silent(show):
    page = show(ConvolutionArithmetic(7, 3, 1))
    page.get_by_role("button", name="Slide the window").click()
    status = page.locator(".cx-status")
    assert status.get_attribute("aria-live") == "off"
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Back to the example").click()
    page.wait_for_timeout(900)
    assert "unit (0, 0)" in status.inner_text() and status.get_attribute("aria-live") is None
    assert page.get_by_role("button", name="Slide the window").is_visible()


def test_dilated_windows_share_taps(show):
    page = show(ConvolutionArithmetic(20, 5, 3, dilation=3))
    status = page.locator(".cx-status")
    assert "Neighbouring windows share 4 of 5 columns." in status.inner_text()
    for kernel, stride, dilation, says in ((3, 1, 1, "share 2 of 3"), (3, 3, 1, "touch without overlap"), (3, 5, 1, "2 columns go unread"),
                                           (3, 1, 2, "share none of the 3"), (3, 2, 2, "share 2 of 3")):
        for label, number in (("Kernel F", kernel), ("Stride S", stride), ("Dilation D", dilation)):
            type_into(page, label, number)
        assert says in status.inner_text()


def test_shares_show_without_a_mouse_and_heads_stay_whole(show):
    page = show(CostTableExplorer("alexnet_227"), width=NARROW)
    assert page.locator("tbody tr").first.locator(".cx-share").all_inner_texts() == ["18.6%", "0.1%", "9.3%"]
    assert page.locator("[title]").count() == 0
    for button in page.locator("thead button").all():  # no word is broken: no line is shorter than its longest word
        widths = button.evaluate("""(node) => { const range = document.createRange(); const text = node.firstChild; let worst = 0;
          for (const word of text.data.matchAll(/[A-Za-z]+/g)) { range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
            worst = Math.max(worst, range.getClientRects().length); } return worst; }""")
        assert widths == 1, button.inner_text()


# --- values ---


def pixels_of(page, side):
    """The photograph as the explorer shows it, (1, 3, side, side), from 0 to 1."""
    values = page.evaluate("""async () => { const image = document.querySelector('.cx-pixels'); const bitmap = await createImageBitmap(
      await (await fetch(image.getAttribute('href'))).blob()); const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
      const pen = canvas.getContext('2d'); pen.drawImage(bitmap, 0, 0); return [...pen.getImageData(0, 0, bitmap.width, bitmap.height).data]; }""")
    return torch.tensor(values, dtype=torch.double).view(side, side, 4)[..., :3].permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("mode, dilation", [("convolution", 1), ("convolution", 2), ("transposed", 1), ("transposed", 2), ("max", 1), ("max", 2), ("average", 1)])
def test_values_are_those_of_pytorch(show, mode, dilation):
    page = show(ConvolutionArithmetic(10, 3, 2, padding=1, dilation=dilation, row=1, column=2, mode=mode))
    pixels = pixels_of(page, 10)
    weight = torch.tensor([-1.0, 0, 1]).expand(1, 3, 3, 3).double()
    if mode in ("convolution", "transposed"):
        page.get_by_label("Weight of green, row 2, column 0").fill("0.5")
        weight = weight.clone()
        weight[0, 1, 2, 0] = 0.5
    expected = {"convolution": lambda: F.conv2d(pixels, weight, stride=2, padding=1, dilation=dilation),
                "transposed": lambda: F.conv_transpose2d(pixels, weight.transpose(0, 1), stride=2, padding=1, dilation=dilation),
                "max": lambda: F.max_pool2d(pixels, 3, 2, 1, dilation), "average": lambda: F.avg_pool2d(pixels, 3, 2, 1)}[mode]()[0, :, 1, 2]
    total = page.locator(".cx-total").inner_text().replace("\u2212", "-")
    numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", total)]
    if mode in ("max", "average"):
        assert numbers == pytest.approx(expected.tolist(), abs=6e-4)
    else:
        assert numbers[-1] == pytest.approx(expected.item(), abs=6e-4)
        assert sum(numbers[:-1]) == pytest.approx(numbers[-1], abs=2e-3)


def test_pooling_without_a_layer_in_pytorch_is_refused(show):
    page = show(ConvolutionArithmetic(10, 3, 2, padding=2, mode="max"))
    assert "Pooling over 3 allows a padding of at most 1, not 2." in page.locator(".cx-status").inner_text()
    assert not page.locator(".cx-values").is_visible()
    page.get_by_label("Show", exact=True).select_option("average")
    type_into(page, "Padding P", 1)
    type_into(page, "Dilation D", 2)
    assert "Average pooling has no dilation." in page.locator(".cx-status").inner_text()


def test_a_pressed_value_shows_what_is_normalized_with_it(show):
    page = show(NormalizationAxes("batch"))
    for name, count in (("batch norm", 18), ("layer norm", 24), ("instance norm", 6), ("group norm", 12)):
        page.get_by_label(name).check()
        assert page.locator(".cx-shared").count() == count
        assert f"come from {count} values" in page.get_by_role("status").inner_text()
    page.get_by_label("4", exact=True).check()
    assert page.locator(".cx-shared").count() == 6
    page.get_by_role("button", name="image 2, channel 3, place 5").click()
    assert page.locator("[aria-pressed=true]").count() == 1 and page.locator(".cx-shared").count() == 6


# --- a live network ---


@pytest.fixture(scope="module")
def live_tab(browser, serve, tmp_path_factory):
    """One page for all tests of a live network, with the files beside it."""
    folder = tmp_path_factory.mktemp("live")
    follow.write_files(folder / "live")
    tab = Tab(browser, serve, folder)
    tab.page.on("request", lambda request: tab.page.requests.append(request.url))
    yield tab
    tab.close()


@pytest.fixture
def live(live_tab):
    """`live(explorer, ...)`: the page with it, and what it asked for; afterwards that nothing went wrong."""
    live_tab.rest()
    live_tab.page.requests = []
    yield lambda explorer, theme="light", width=1280: live_tab.show(explorer, theme=theme, width=width)
    assert live_tab.rest() == []


def start(page):
    page.get_by_role("button", name="Fetch and run").click()
    page.locator(".cx-sum p").first.wait_for()  # what follows the answer, too


def shares(page):
    """Class -> probability in percent, of those shown."""
    texts = page.locator(".cx-answers button").all_inner_texts()
    found = [re.fullmatch(r"(.+?)\s*([\d.]+)%.*", text, re.S) for text in texts]  # a page that is not laid out yet breaks no lines
    return {match[1]: float(match[2]) for match in found}


def expected_shares(network, image, change=lambda model: None):
    """What PyTorch gives for a PIL image, in percent."""
    model, settings = follow.trained(network)
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, settings["input_size"][1:], mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor(settings["mean"]).view(3, 1, 1)) / torch.tensor(settings["std"]).view(3, 1, 1)
    model.eval()
    change(model)
    with torch.no_grad():
        return dict(zip(settings["classes"], (100 * model(pixels)[0].softmax(0)).tolist()))


def test_nothing_is_fetched_before_it_is_asked_for(live):
    page = live(EXAMPLES["follow"]())
    page.wait_for_timeout(300)
    assert not any("/live/" in url for url in page.requests)
    assert "Nothing has been fetched yet" in page.get_by_role("status").inner_text()
    assert "no picture leaves it. Its weights have 16 bits: " in page.locator(".cx").inner_text()
    start(page)
    assert {url.rpartition("/")[2] for url in page.requests if "/live/" in url} == {"zfnet_cifar.json", "zfnet_cifar.safetensors", "chelsea.jpg"}


def test_every_network_says_what_its_rounded_weights_cost():
    record = follow.load_result("live_precision")["networks"]
    assert set(record) == set(follow.NETWORKS)
    for name, found in record.items():
        assert found["page"] > found["float32"] - 0.5 and found["same_answer"] > 97
        said = follow._cost_of_rounding(name)
        share = re.search(rf"([\d.]+)% of {found['images']:,} pictures", said)[1]
        assert abs(float(share) - found["same_answer"]) <= 0.1 and (share == "100.0") == (found["same_answer"] == 100)
        assert (" 8 bits" in said) == (name == "efficientnet_lite0")


@pytest.mark.parametrize("network", ["zfnet_cifar", "vgg11_animals", "alexnet_cifar", "plain20", "resnet20", "googlenet_cifar", "densenet_cifar",
                                     "mobilenet_v2_cifar", "seresnet20"])
def test_a_dropped_photograph_gives_pytorchs_probabilities(live, tmp_path, network):
    page = live(FollowPhotograph(network))
    image = Image.open(follow.book_file("images/coffee.jpg")).convert("RGB").resize((150, 150))
    image.save(tmp_path / "mine.png")
    start(page)
    before, text = shares(page), page.locator(".cx-answers").inner_text()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.wait_for_function("(text) => document.querySelector('.cx-answers').innerText !== text", arg=text)
    expected, found = expected_shares(network, image), shares(page)
    assert found != before and len(found) == 5
    for name, share in found.items():
        assert share == pytest.approx(expected[name], abs=0.2), (found, expected)


def test_a_unit_its_field_and_its_sum(live):
    page = live(FollowPhotograph("vgg11_animals", layer=1, unit=(10, 12), photograph="rocket"))
    start(page)
    status = page.get_by_role("status")
    assert "unit (10, 12)" in status.inner_text() and "sees rows 9 to 11, columns 11 to 13" in status.inner_text()
    for layer in (1, 4):
        page.locator(f"[data-node='{layer}']").click()
        page.wait_for_function("(layer) => document.querySelector(`[data-node='${layer}']`).ariaPressed === 'true'", arg=layer)
        text = page.locator(".cx-sum .cx-total").inner_text().replace("\u2212", "-").replace("- ", "+ -")
        left, _, right = text.partition(" = ")
        total = float(right.split()[0].rstrip(","))
        assert sum(float(number) for number in left.split(" + ")) == pytest.approx(total, abs=4e-3), text
    table = page.locator(".cx-kernels table").first
    products = [tuple(float(part) for part in cell.replace("\u2212", "-").split("\u00d7")) for cell in
                (text.replace("\n", "") for text in table.locator("td").all_inner_texts())]
    caption = float(table.locator("caption").inner_text().split(": ")[1].replace("\u2212", "-"))
    assert sum(one * other for one, other in products) == pytest.approx(caption, abs=2e-2)
    page.get_by_role("slider", name="Channel").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('[role=status]').innerText.includes('channel 1,')")
    cards = page.locator(".cx-strip [data-node]")
    assert cards.evaluate_all("all => all.filter((one) => one.querySelector('small').scrollWidth > one.clientWidth).length") == 0
    cards.last.click()
    page.wait_for_function("() => document.querySelector('[role=status]').innerText.includes('it sees the whole picture.')")


def test_what_a_layer_reads_and_what_each_channel_adds(live):
    page = live(FollowPhotograph("resnet20", layer=3, unit=(5, 6)))
    start(page)
    status = page.get_by_role("status")
    assert [page.get_by_role("slider", name=f"Unit {axis}").input_value() for axis in ("row", "column")] == ["5", "6"]
    page.get_by_role("img", name="What it adds, everywhere").nth(2).wait_for()
    assert page.get_by_role("img", name=re.compile(r"Channel \d+ and the window")).count() == 3
    nodes = json.loads(follow.file("resnet20.json"))["nodes"]
    add = next(i for i, node in enumerate(nodes) if node.get("kind") == "add")
    page.locator(f"[data-node='{add}']").click()
    reads = page.get_by_role("group", name="What this layer reads").get_by_role("button")
    reads.filter(has_text="the branch F(x)").wait_for()
    assert re.search(r"\(the branch F\(x\)\) \+ .*\(the shortcut x\)|\(the shortcut x\) \+ .*\(the branch F\(x\)\)", page.locator(".cx-sum").inner_text())
    assert page.locator(".cx-strip .cx-read").evaluate_all("nodes => nodes.map((node) => Number(node.dataset.node))") == sorted(nodes[add]["from"])
    reads.filter(has_text="the shortcut x: ReLU").click()
    page.wait_for_function("() => document.querySelector('[role=status]').innerText.includes('ReLU, channel 0')")
    assert "is 0;" in status.inner_text() or "ReLU(" in page.locator(".cx-sum").inner_text()


def test_a_multiplication_has_maps_and_gates(live):
    page = live(FollowPhotograph("seresnet20"))
    start(page)
    product = next(i for i, node in enumerate(json.loads(follow.file("seresnet20.json"))["nodes"]) if node.get("kind") == "mul")
    page.locator(f"[data-node='{product}']").click()
    reads = page.get_by_role("group", name="What this layer reads").get_by_role("button")
    reads.filter(has_text="the maps: convolution").wait_for()
    assert reads.filter(has_text="the gates: sigmoid").count() == 1
    value, gate, result = re.fullmatch(r"(\S+) \u00d7 (\S+)\s+= (\S+)", page.locator(".cx-sum").inner_text().replace("\u2212", "-")).groups()
    assert 0 < float(gate) < 1 and float(value) * float(gate) == pytest.approx(float(result), abs=1e-3)


def test_a_concatenation_says_whose_channel_it_is_and_loses_an_input(live):
    page = live(FollowPhotograph("densenet_cifar"))
    start(page)
    nodes = json.loads(follow.file("densenet_cifar.json"))["nodes"]
    cat, node = next((i, node) for i, node in enumerate(nodes) if node["op"] == "cat" and len(node["from"]) == 3)
    page.locator(f"[data-node='{cat}']").click()
    page.get_by_text(f"unchanged, from channel 0 of convolution {nodes[node['from'][0]]['layer']}").wait_for()
    page.get_by_role("spinbutton", name="Channel").fill("33")
    page.get_by_text(f"unchanged, from channel 1 of convolution {nodes[node['from'][1]]['layer']}").wait_for()
    before = shares(page)
    page.get_by_role("button", name="Switch off: input 2 (channels 32 to 47)").click()
    page.get_by_text("a part is switched off, and it is 0 instead").wait_for()
    image = Image.open(follow.io.BytesIO(follow.file("chelsea.jpg")))

    def silence(model):
        model.get_submodule(node["layer"]).register_forward_hook(
            lambda module, args, output: output * ~torch.isin(torch.arange(output.shape[1]), torch.arange(32, 48)).view(1, -1, 1, 1))

    expected, found = expected_shares("densenet_cifar", image, silence), shares(page)
    assert found != before
    for name, share in found.items():
        assert share == pytest.approx(expected[name], abs=0.2)


def test_softmax_is_written_out_and_the_window_slides(live):
    page = live(FollowPhotograph("zfnet_cifar", layer=1, unit=(3, 4)))
    start(page)
    for chosen in (0, 2):
        page.locator(".cx-answers button").nth(chosen).click()
        page.wait_for_function("(i) => document.querySelectorAll('.cx-answers button')[i].ariaPressed === 'true'", arg=chosen)
        top, terms, whole, share = re.fullmatch(r"Softmax: exp\((.*?)\) / \((.*)\) = [\d.,e+-]+ / ([\d.,e+-]+) = ([\d.]+)%",
                                                page.locator(".cx-softmax").inner_text().replace("\u2212", "-")).groups()
        scores = [float(number) for number in re.findall(r"exp\((.*?)\)", terms)]
        assert len(scores) == 10 and float(top) in scores
        total = sum(np.exp(score) for score in scores)
        assert total == pytest.approx(float(whole.replace(",", "")), rel=2e-3) and 100 * np.exp(float(top)) / total == pytest.approx(float(share), abs=0.1)
    page.get_by_role("button", name="Slide the window").click()
    page.wait_for_function("() => /unit \\(3, 6\\)/.test(document.querySelector('[role=status]').innerText)")
    page.get_by_role("button", name="Stop").click()
    assert page.get_by_role("status").get_attribute("aria-live") is None
    low, high = re.search(r"from (.*) to (.*):", page.locator(".cx-maps figcaption").nth(1).inner_text().replace("\u2212", "-")).groups()
    assert float(low) < float(high)


def test_a_filter_switched_off_changes_the_answer_as_in_pytorch(live):
    page = live(FollowPhotograph("zfnet_cifar", layer=1, channel=5))
    start(page)
    image = Image.open(page.request.get(page.requests[-1]).body() and follow.io.BytesIO(follow.file("chelsea.jpg")))
    for name, share in shares(page).items():
        assert share == pytest.approx(expected_shares("zfnet_cifar", image)[name], abs=0.2)
    before = page.locator(".cx-answers").inner_text()
    page.get_by_role("button", name="Switch off: channel 5").click()
    page.wait_for_function("(text) => document.querySelector('.cx-answers').innerText !== text", arg=before)

    def silence(model):
        model.get_submodule("stem.0.conv").register_forward_hook(lambda module, args, output: output * (torch.arange(48) != 5).view(1, -1, 1, 1))

    expected = expected_shares("zfnet_cifar", image, silence)
    for name, share in shares(page).items():
        assert share == pytest.approx(expected[name], abs=0.2)
    page.get_by_text("with 1 part switched off").wait_for()  # the answer comes first
    page.get_by_role("button", name="Switch on again").click()
    page.wait_for_function("(text) => document.querySelector('.cx-answers').innerText === text", arg=before)


def test_what_the_answer_rests_on(live):
    page = live(FollowPhotograph("vgg11_animals"))
    start(page)
    scene = page.locator(".cx-two canvas")

    def look():
        return scene.evaluate("node => node.toDataURL()")

    def chosen(place):
        return page.locator(".cx-answers button").nth(place).locator("span").first.inner_text()

    plain = look()
    for overlay, means in (("Grad-CAM", "the last maps speak for"), ("occlusion", "covering a patch takes most from")):
        page.get_by_label("Over the picture").select_option(overlay)
        pictures = []
        for place in (0, 1, 0):
            page.locator(".cx-answers button").nth(place).click()
            page.locator(".cx-two figcaption", has_text=f"; bright where {means} “{chosen(place)}”").wait_for()
            pictures.append(look())
        assert pictures[0] == pictures[2] and plain != pictures[0] != pictures[1] != plain
    page.get_by_label("Over the picture").select_option("nothing")
    page.wait_for_function("(old) => document.querySelector('.cx-two canvas').toDataURL() === old", arg=plain)


def test_the_cameras_picture_stays_in_the_page(live):
    page = live(FollowPhotograph("zfnet_cifar"))
    start(page)
    assert "no picture leaves it" in page.locator(".cx").inner_text()
    before, asked = page.locator(".cx-answers").inner_text(), len(page.requests)
    page.evaluate("""() => { navigator.mediaDevices.getUserMedia = async () => { throw new Error("none"); }; }""")
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("There is no camera here, or this page may not use it.").wait_for()
    page.evaluate("""() => {
      const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
      setInterval(() => { pen.fillStyle = "#1a56a8"; pen.fillRect(0, 0, 300, 150); }, 30);
      navigator.mediaDevices.getUserMedia = async () => (window.stream = canvas.captureStream());
    }""")
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("() => document.querySelector('video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    page.wait_for_function("(text) => document.querySelector('.cx-answers').innerText !== text", arg=before)
    expected, found = expected_shares("zfnet_cifar", Image.new("RGB", (150, 150), "#1a56a8")), shares(page)
    for name, share in found.items():
        assert share == pytest.approx(expected[name], abs=3)  # a video's colours are nearly the canvas's
    assert page.evaluate("window.stream.getTracks().every((track) => track.readyState === 'ended')")
    assert [url for url in page.requests[asked:] if not url.startswith("blob:")] == []


def test_layers_and_units_by_touch_and_by_arrow_keys(live):
    page = live(FollowPhotograph("zfnet_cifar", layer=3, unit=(0, 0)), width=NARROW)
    start(page)
    status = "(text) => document.querySelector('[role=status]').innerText.includes(text)"
    client = page.context.new_cdp_session(page)
    client.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def tap(name, across, down):
        place = page.get_by_role("img", name=re.compile(name)).first
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        point = {"x": box["x"] + across * box["width"], "y": box["y"] + down * box["height"]}
        client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    _, channels, _, side = json.loads(follow.file("zfnet_cifar.json"))["nodes"][3]["shape"]
    tap("Channel 0 of", 0.5 + 0.5 / side, 1 - 0.5 / side)
    page.wait_for_function(status, arg=f"unit ({side - 1}, {side // 2})")
    across = int(np.ceil(np.sqrt(channels)))
    tap("All maps", 0.5 / across, 1.5 / np.ceil(channels / across))
    page.wait_for_function(status, arg=f"channel {across},")
    cards = page.locator(".cx-strip button")
    assert cards.evaluate_all("nodes => nodes.filter((node) => node.tabIndex === 0).map((node) => Number(node.dataset.node))") == [3]
    cards.nth(3).focus()
    for key, node in (("ArrowRight", 4), ("Home", 0), ("ArrowLeft", 0), ("End", cards.count() - 1)):
        page.keyboard.press(key)
        page.wait_for_function("(i) => document.activeElement.dataset.node === i && document.activeElement.ariaPressed === 'true'", arg=str(node))
    page.wait_for_function(status, arg="), unit")
    number, name = re.search(r", channel (\d) \((\w+)\), unit", page.get_by_role("status").inner_text()).groups()
    assert name == follow.CIFAR10[int(number)]  # the last layer's channels are the classes
    client.detach()


def test_opened_as_a_file_it_says_what_is_missing(browser, tmp_path):
    bare_page(tmp_path, EXAMPLES["follow"]())
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_role("button", name="Fetch and run").click()
    page.get_by_text("This page was opened as a file").wait_for()
    assert "make serve" in page.get_by_role("status").inner_text()
    page.close()


def test_a_picture_that_is_none_and_a_file_that_is_missing(browser, serve, tmp_path):
    bare_page(tmp_path, EXAMPLES["follow"]())
    (tmp_path / "text.png").write_text("no picture")
    page = browser.new_page()
    page.goto(f"{serve(tmp_path)}/index.html")
    page.locator("input[type=file]").set_input_files(tmp_path / "text.png")
    page.get_by_text("That file is no picture that this browser can read.").wait_for()
    page.get_by_role("button", name="Fetch and run").click()
    page.get_by_text("The file zfnet_cifar.json is missing beside this page.").wait_for()
    page.close()


@pytest.mark.parametrize("theme, width", [("light", 1280), ("dark", NARROW)])
def test_a_running_network_is_accessible_and_narrow(live, theme, width):
    page = live(EXAMPLES["follow"](), theme, width)
    start(page)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert violations(page) == []


def test_a_kernel_answers_for_files():
    explorer, sent = FollowPhotograph("zfnet_cifar"), []
    explorer.send = lambda content, buffers=None: sent.append((content, buffers))
    explorer._answer(explorer, {"ask": "chelsea.jpg"}, [])
    explorer._answer(explorer, {"ask": "../secret"}, [])
    assert sent[0][0] == {"file": "chelsea.jpg"} and sent[0][1][0][:2] == b"\xff\xd8"
    assert "there is no file '../secret'" in sent[1][0]["error"]


# --- questions ---


def test_a_question_by_keyboard(show):
    page = show(EXAMPLES["question"]())
    status = page.get_by_role("status")
    field = page.get_by_label("Your answer")
    for text, says in (("34,848", "Not yet: the biases are missing."), ("many", "Please write a number"), ("5", "Not yet."), ("4", "Not yet: are there so few?"), ("34.944k", "Right. 96 x")):
        field.fill(text)
        assert status.inner_text() == ""
        field.press("Enter")
        assert says in status.inner_text(), text
    page.reload()
    page.get_by_text("You have solved this one before.").wait_for()
    page.get_by_role("button", name="A hint").click()
    assert page.locator(".cx-hints li").all_inner_texts() == ["A filter has 11 x 11 x 3 weights."]
    assert page.get_by_role("button", name="Another hint").is_disabled()


def test_choices_and_orderings(show):
    page = show(EXAMPLES["choice"]())
    page.get_by_label("GoogLeNet").check()
    page.get_by_role("button", name="Check").click()
    assert "Not yet." in page.get_by_role("status").inner_text()
    page.get_by_label("VGG-16").check()
    page.get_by_role("button", name="Check").click()
    assert "Right." in page.get_by_role("status").inner_text()
    page = show(EXAMPLES["order"]())
    for place, name in enumerate(("NiN", "AlexNet", "VGG-16")):
        while page.locator(".cx-order span").all_inner_texts().index(name) > place:
            page.get_by_role("button", name=f"Move {name} up").press("Enter")
    page.get_by_role("button", name="Check").click()
    assert "Right." in page.get_by_role("status").inner_text()


def test_progress_is_kept_for_one_question_alone(show):
    page = show(Question("A", 1, name="first"))
    page.get_by_label("Your answer").fill("1")
    page.get_by_role("button", name="Check").click()
    assert page.evaluate("Object.entries(localStorage)") == [["cnnlib question: first", "solved"]]
