"""Explorers with a kernel: what Python sets moves the view, what the view sets reaches Python, `jslink` works.

First by the messages alone, which needs a kernel; then in JupyterLab in a browser, where JupyterLab is installed (it is not
among the pinned packages: `pip install jupyterlab` into an environment of your own, then `pytest -m slow tests/test_lab.py`).
"""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel


CREATE = """
import ipywidgets
from cnnlib.widgets import ConvolutionArithmetic
explorer = ConvolutionArithmetic(227, 11, 4)
slider = ipywidgets.IntSlider(4, 1, 16, description="linked")
link = ipywidgets.jslink((slider, "value"), (explorer, "stride"))
"""


# --- the messages ---


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ, "OMP_NUM_THREADS": "1"}, startup_timeout=240)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code):
    """Every message of one cell; its printed text; an error is raised."""
    messages = []
    reply = client.execute_interactive(code, timeout=240, output_hook=messages.append, store_history=False)
    assert reply["content"]["status"] == "ok", reply["content"]
    text = "".join(one["content"]["text"] for one in messages if one["msg_type"] == "stream")
    return messages, text.strip()


def test_traits_travel_both_ways(kernel):
    messages, _ = run(kernel, CREATE)
    opened = {one["content"]["comm_id"]: one["content"]["data"]["state"] for one in messages if one["msg_type"] == "comm_open"}
    (explorer, state), = ((name, state) for name, state in opened.items() if "_esm" in state)
    assert state["kernel_size"] == 11 and state["data"]["limits"]["stride"] == [1, 16]

    messages, _ = run(kernel, "explorer.kernel_size = 7")  # from Python to the view
    updates = [one["content"] for one in messages if one["msg_type"] == "comm_msg"]
    assert [(one["comm_id"], one["data"]["state"]) for one in updates] == [(explorer, {"kernel_size": 7})]

    def from_view(state):
        data = {"method": "update", "state": state, "buffer_paths": []}
        kernel.shell_channel.send(kernel.session.msg("comm_msg", {"comm_id": explorer, "data": data}))

    from_view({"stride": 3, "padding": 2})  # from the view to Python
    assert run(kernel, "print(explorer.stride, explorer.padding, explorer.kernel_size)")[1] == "3 2 7"
    from_view({"kernel_size": 99})  # a value that is not allowed changes nothing
    assert run(kernel, "print(explorer.kernel_size)")[1] == "7"

    ends = [state for state in opened.values() if state.get("_model_name") == "LinkModel"]  # jslink lives in the browser
    assert [end["target"] for end in ends] == [[f"IPY_MODEL_{explorer}", "stride"]]


def test_an_explorer_takes_part_in_python_code(kernel):
    run(kernel, CREATE)
    code = """
seen = []
explorer.observe(lambda change: seen.append((change.name, change.new)), ["padding", "dilation"])
both = ipywidgets.link((slider, "value"), (explorer, "dilation"))
slider.value = 2
explorer.padding = 5
print(seen)
"""
    assert run(kernel, code)[1] == "[('dilation', 4), ('dilation', 2), ('padding', 5)]"


# --- JupyterLab ---


CELLS = [
    CREATE + "ipywidgets.VBox([slider, explorer])",
    "explorer.kernel_size = 5",
    'print("Python has", explorer.input_size, explorer.kernel_size, explorer.stride)',
]


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab with one notebook, whose cells are `CELLS`."""
    if not importlib.util.find_spec("jupyterlab"):
        pytest.skip("JupyterLab is not installed")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}),
                   tmp_path / "explorers.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
               "--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.root_dir={tmp_path}",
               "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
                   "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}
    log = (tmp_path / "log").open("w+")
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


@pytest.mark.slow
def test_in_jupyterlab(browser, lab):  # noqa: F811
    sync_api = pytest.importorskip("playwright.sync_api")
    page = browser.new_page(viewport={"width": 1300, "height": 1400})
    page.set_default_timeout(180_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{lab}/lab/tree/explorers.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    explorer = page.locator(".cx-convolution")
    for _ in range(4):  # JupyterLab drops what is run before its own connection stands
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        try:
            explorer.wait_for(timeout=45_000)
            break
        except sync_api.TimeoutError:
            continue
    page.wait_for_function("() => document.body.innerText.includes('Python has 227')")
    answer = explorer.locator(".cx-formula strong")

    # Python set the kernel to 5: (227 - 5) / 4 + 1 = 56 (rounded down)
    page.wait_for_function("() => document.querySelector('.cx-formula strong')?.innerText === '56'")
    number = explorer.locator("input[type=number]")
    assert number.nth(1).input_value() == "5"

    # jslink: the plain slider moves the explorer, and the other way round.
    handle = page.locator(".widget-slider [role=slider], .widget-slider .noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.cx-formula strong').innerText === '45'")  # stride 5
    explorer.get_by_role("slider", name="Stride S").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.widget-readout').innerText === '6'")
    assert answer.inner_text() == "38"

    # What the view set stands in Python.
    number.nth(1).fill("9")
    page.wait_for_function("() => document.querySelector('.cx-formula strong').innerText === '37'")
    page.locator(".jp-Cell .jp-InputArea-editor").last.click()
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.body.innerText.includes('Python has 227 9 6')")

    # Light and dark as JupyterLab is.
    papers = [page.evaluate("(light) => { document.body.dataset.jpThemeLight = light; "
                            "return getComputedStyle(document.querySelector('.cx')).backgroundColor; }", light)
              for light in ("true", "false")]
    assert papers[0] != papers[1] and all(re.match("rgb", paper) for paper in papers)
    page.close()
    assert errors == []
