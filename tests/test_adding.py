"""The page on adding an architecture holds a family file that works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "chapters" / "adding.md"
USE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import meannet
from cnnlib import create_model, describe, list_models
from cnnlib.analysis import cost_table, receptive_field

assert list_models(family="meannet") == ["meannet", "meannet_cifar"]
model = create_model("meannet_cifar", num_classes=4).eval()
assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4)
total = cost_table(model, (3, 32, 32)).total
assert total.params == sum(p.numel() for p in model.parameters()) and 1e6 < total.macs < 80e6
assert receptive_field(model, (3, 32, 32))["stages.0"].size > (3, 3)
for child in ("stem", "stages", "head"):
    assert hasattr(model, child)
try:
    create_model("meannet", depths=(1,))
except ValueError as error:
    assert "depths=(1,)" in str(error)
else:
    raise AssertionError("unequal lengths passed")
"""


def test_the_example_is_a_family_file_that_works(tmp_path):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    (tmp_path / "meannet.py").write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
