"""Fusion of branches: the page's sums are those of the block in PyTorch at every step, and the last kernel is its `fused()` one."""

import base64

import numpy as np
import pytest
import torch

from browsing import NARROW, violations
from cnnlib.models.repvgg import RepBlock
from cnnlib.widgets import BranchFusion
from cnnlib.widgets import fusion
from test_widgets import node  # noqa: F401 (fixture)


def blocks():
    """The example, and one with other normalizations, some of their factors negative."""
    torch.manual_seed(0)
    other = RepBlock(3, 3).eval()
    for norm in (other.kernels[0].norm, other.pointwise.norm, other.identity):
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            torch.nn.init.normal_(tensor)
        torch.nn.init.uniform_(norm.running_var, 0.01, 2)
        norm.eps = 1e-2
    return {"example": fusion._example(), "other": other}


@pytest.mark.parametrize("name", ["example", "other"])
def test_the_page_fuses_as_pytorch_does(node, name):
    block = blocks()[name]
    data = BranchFusion(block).data
    pixels = np.frombuffer(base64.b64decode(data["pixels"]), np.uint8).reshape(fusion.SIDE, fusion.SIDE, 3).transpose(2, 0, 1) / 255
    branches, steps, plain = data["branches"], data["steps"], pixels.reshape(3, -1).tolist()
    found = node("fusion", [call for step in range(steps + 1)
                            for call in (["outputAt", branches, plain, fusion.SIDE, step, steps], ["branchesAt", branches, step, steps])])
    with torch.no_grad():
        expected = block.double()(torch.tensor(pixels)[None])[0].flatten(1)
        one = block.fused()[0]
    assert (expected > 0).double().mean() > 0.3
    for step, (output, now) in enumerate(zip(found[::2], found[1::2], strict=True)):
        assert torch.allclose(torch.tensor(output, dtype=torch.double), expected, rtol=0, atol=1e-9), step
        assert [branch["size"] for branch in now] == ([3, 1, 1] if step < 2 else [3, 3, 3] if step < steps else [3])
        assert [branch["norm"] is None for branch in now] == [step > 0] * len(now)
    kernel, bias = torch.tensor(now[0]["kernel"]), torch.tensor(now[0]["bias"])
    assert torch.allclose(kernel, one.weight.flatten(2).float(), atol=1e-5) and torch.allclose(bias, one.bias.float(), atol=1e-5)


@pytest.mark.parametrize("block", [RepBlock(3, 4), RepBlock(3, 3, 1), RepBlock(3, 3, branches=2), RepBlock(3, 3, groups=3), RepBlock(3, 3, stride=2), torch.nn.ReLU()])
def test_other_blocks_are_refused(block):
    with pytest.raises(ValueError, match=r"block must be RepBlock\(3, 3\)"):
        BranchFusion(block)


def test_wrong_numbers_are_named():
    for arguments, message in (({"step": 13}, "step=13; it must be an integer from 0 to 12"), ({"channel": 3}, "channel=3.*0 to 2"), ({"row": 32}, "row=32.*0 to 31")):
        with pytest.raises(ValueError, match=message):
            BranchFusion(**arguments)


def canvas_of(page, name):
    return page.get_by_role("img", name=name).evaluate("node => node.toDataURL()")


def test_the_output_stands_still_while_branches_move(show):
    page = show(BranchFusion())
    slider, status = page.get_by_role("slider", name="From three branches to one kernel"), page.get_by_role("status")
    before, first = canvas_of(page, "The output"), page.locator(".cx-total").inner_text()
    assert first.count(" + ") == 2 and page.locator(".cx-card table").count() == 9
    slider.focus()
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert "50% of the small kernels" in slider.get_attribute("aria-valuetext")
    assert canvas_of(page, "The output") == before and "No value of the output has moved by as much as 10" in status.inner_text()
    boxes = [card.bounding_box() for card in page.locator(".cx-card").all()]
    assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"] < boxes[0]["y"] + 1.6 * boxes[0]["height"]
    page.keyboard.press("End")
    assert canvas_of(page, "The output") == before and page.locator(".cx-total").inner_text().endswith(first.rpartition("=")[2].strip())
    assert "27 multiply-adds instead of 30 and three normalizations" in status.inner_text()
    assert [card.is_visible() for card in page.locator(".cx-card").all()] == [True, False, False]
    page.get_by_role("button", name="Back to the example").click()
    assert page.locator(".cx-total").inner_text() == first


def test_a_pressed_place_is_written_out(show):
    page = show(BranchFusion(step=12))
    page.get_by_role("img", name="The output").click(position={"x": 2, "y": 2})
    assert "Unit (0, 0) of channel 0" in page.locator(".cx-total").inner_text()
    page.get_by_label("2", exact=True).check()
    assert "Unit (0, 0) of channel 2" in page.locator(".cx-total").inner_text()


@pytest.mark.parametrize("theme, step", [("light", 0), ("dark", 7)])
def test_it_is_accessible_and_narrow(show, theme, step):
    page = show(BranchFusion(step=step), theme, NARROW)
    tops = [card.bounding_box()["y"] for card in page.locator(".cx-card").all()]
    assert (tops[1] - tops[0] < page.locator(".cx-card").first.bounding_box()["height"]) is (step > 2)  # slid from the start
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
    assert violations(page) == []
