"""`python -m cnnlib.analysis`: every option, and errors in one line."""

import subprocess
import sys

import pytest

from cnnlib.analysis.__main__ import main


def run(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_costs_by_layer_and_by_module(capsys):
    code, out, _ = run(capsys, "resnet20")
    assert code == 0 and out.splitlines()[0].split()[:3] == ["layer", "kind", "output"] and "Conv2d" in out and "40,551,040" in out
    _, out, _ = run(capsys, "resnet20", "--depth", "1")
    assert [line.split()[0] for line in out.splitlines()[2:6]] == ["(model)", "stem", "stages", "head"] and "40.6M" in out
    _, out, _ = run(capsys, "resnet20", "--columns", "name,macs,macs%", "--batch", "2")
    assert out.splitlines()[0].split()[0] == "layer" and "81,102,080" in out and "batch 2" in out
    _, out, _ = run(capsys, "resnet20", "--depth", "0", "--backward")
    forward, first = 40_551_040, 32 * 32 * 16 * 27  # the image needs no gradient
    assert "backward" in out and f"{(2 * forward - first) / 1e6:.3g}M" in out


def test_fields_memory_and_formats(capsys):
    _, out, _ = run(capsys, "torchvision:alexnet", "--field", "--format", "csv")
    lines = out.splitlines()
    assert lines[0] == "name,size,stride,start,units,aligned,global_axes" and "features.0,11x11,4x4,-2x-2,55x55,True,0x0" in lines
    assert any(line.startswith("features,195x195") for line in lines)
    _, out, _ = run(capsys, "resnet20", "--memory", "--batch", "4", "--optimizer", "adam")
    assert "saved bytes" in out and "optimizer state 2.16MB" in out
    _, out, _ = run(capsys, "resnet20", "--format", "markdown")
    assert out.startswith("| layer | kind | output | params |")
    _, out, _ = run(capsys, "resnet20", "--format", "html", "--field")
    assert out.startswith("<table>")
    _, out, _ = run(capsys, "resnet20", "--format", "csv")
    assert out.startswith("name,kind,input_shape,output_shape,params,")


def test_comparison_and_own_classes(capsys):
    _, out, _ = run(capsys, "resnet20", "--compare", "torchvision:alexnet", "torch.nn:Identity", "--input", "3x64x64")
    rows = [line.split() for line in out.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["resnet20", "torchvision:alexnet", "torch.nn:Identity"] and rows[2][2] == "0"
    code, out, _ = run(capsys, "torch.nn:Flatten", "--input", "3x8x8", "--partial")
    assert code == 0 and "192" in out


@pytest.mark.parametrize("arguments, message", [
    (["resnet2000"], "resnet2000"), (["torchvision:nope"], "nope"), (["timm:nope"], "nope"), (["no_such_package:Net"], "no_such_package"),
    (["torch.nn:Nothing"], "has no 'Nothing'"), (["torch.nn:functional"], "not callable"), (["json:JSONEncoder"], "nn.Module"),
    (["resnet20", "--columns", "names"], "no column 'names'"), (["resnet20", "--depth", "-1"], "depth must be 0 or more"),
    (["resnet20", "--batch", "0"], "batch_size must be"), (["torchvision:alexnet", "--input", "3x8x8"], "module 'features"),
    (["torch.nn:Conv2d"], "missing"), (["torchvision:alexnet", "--input", "1x3x224x224"], "leave out the batch"),
])
def test_errors_take_one_line(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 1 and not out and err.startswith("error: ") and len(err.splitlines()) == 1 and message in err


def test_draws_a_network(capsys, tmp_path):
    path = tmp_path / "drawn.svg"
    assert main(["resnet20", "--draw", str(path)]) == 0
    assert capsys.readouterr().out == f"drawn in {path}\n" and "<svg" in path.read_text() and "resnet20" in path.read_text()
    assert main(["resnet20", "--draw", str(tmp_path / "nowhere" / "drawn.svg")]) == 1
    assert main(["resnet20", "--compare", "resnet32", "--draw", str(path)]) == 1
    assert "--compare" in capsys.readouterr().err


def test_usage_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "timm:convnext_tiny --depth 2" in out and "without the batch" in out
    with pytest.raises(SystemExit):
        main(["resnet20", "--input", "3x8y"])
    assert "'3x8y' is no shape such as 3x224x224" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "cnnlib.analysis", "resnet20", "--depth", "0"], capture_output=True, text=True)
    assert done.returncode == 0 and "40.6M" in done.stdout and not done.stderr
