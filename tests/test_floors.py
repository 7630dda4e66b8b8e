"""The floors of the package: a module imports lower floors only, no sibling on its own floor, and nobody's private names."""

import ast
from pathlib import Path

import cnnlib
import pytest

PACKAGE = Path(cnnlib.__file__).parent
GROUND = (  # floor 0, and what it stands on itself
    ("arranged",),
    ("layers", "running", "vision", "photographs", "tables", "judging", "arguments"),
    ("published",),
    ("registry",),
)
FLOORS = (
    ("models", "analysis", "data", "features", "compression", "segmentation", "stress"),
    ("train", "plots", "transfer", "shipping"),
    ("widgets", "notebook", "classify"),
)
FLOOR_OF = {name: 1 - len(GROUND) + depth for depth, names in enumerate(GROUND) for name in names}
FLOOR_OF |= {name: floor for floor, names in enumerate(FLOORS, 1) for name in names}
FLOOR_OF["cnnlib"] = FLOOR_OF["models"]  # `from cnnlib import create_model` brings the families
HOME_OF = {"torchvision": "vision", "IPython": "notebook", "matplotlib_inline": "notebook"}  # imported nowhere else
LATE = ("matplotlib", "pandas", "ipywidgets", "anywidget")  # `import cnnlib` goes without them
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path):
    """`cnnlib/models/vgg.py` -> `models.vgg`"""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports(path, *, top=False):
    """Full dotted names of everything that a file imports: at its top only, or inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ".".join(path.relative_to(PACKAGE.parent).parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, (here, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def unit_of(dotted):
    """What a rule speaks of: a floor's module; for a family, the family itself. `cnnlib.models.vgg.VGG` -> `models.vgg`"""
    parts = dotted.removeprefix("cnnlib.").split(".")
    if parts[0] not in FLOOR_OF:
        return "cnnlib"
    return ".".join(parts[:2]) if parts[0] == "models" and len(parts) > 1 else parts[0]


def test_every_module_has_a_floor():
    assert {name_of(path).split(".")[0] for path in FILES} <= set(FLOOR_OF)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_imports_lower_floors_only(path):
    unit = unit_of(name_of(path))
    floor = FLOOR_OF[unit.split(".")[0]]
    for dotted in imports(path):
        if dotted.split(".")[0] == "cnnlib":
            other = unit_of(dotted)
            assert other == unit or FLOOR_OF[other.split(".")[0]] < floor, f"{unit} imports {dotted}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_leaves_other_packages_to_their_home(path):
    name = name_of(path).split(".")[0]
    for dotted in imports(path):
        assert HOME_OF.get(dotted.split(".")[0], name) == name, f"{name} imports {dotted}"
    if FLOOR_OF[name] < FLOOR_OF["train"]:
        assert not {dotted.split(".")[0] for dotted in imports(path, top=True)} & set(LATE)


@pytest.mark.parametrize("path", [path for path in FILES if name_of(path).split(".")[0] in ("analysis", "train")],
                         ids=name_of)
def test_analysis_and_training_name_no_family(path):
    assert not any(dotted.startswith("cnnlib.models") for dotted in imports(path))


PRIVATE_STILL = {  # to be mended where they stand
    ("analysis.memory", "cnnlib.analysis.trace._lock"), ("analysis.memory", "cnnlib.analysis.trace._meta_inputs"),
}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_leaves_private_names_to_their_module(path):
    """A name that starts with an underscore is read in the file where it stands: neither imported nor reached through its module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = [dotted for dotted in imports(path) if dotted.startswith("cnnlib.")]
    imported = {dotted for dotted in ours if private(dotted.rpartition(".")[2])}
    modules = {dotted.rpartition(".")[2] for dotted in ours if (PACKAGE.parent / dotted.replace(".", "/")).with_suffix(".py").exists()
               or (PACKAGE.parent / dotted.replace(".", "/")).is_dir()}
    reached = {f"{node.value.id}.{node.attr}" for node in ast.walk(tree)
               if isinstance(node, ast.Attribute) and private(node.attr) and isinstance(node.value, ast.Name) and node.value.id in modules}
    assert {(name_of(path), dotted) for dotted in imported | reached} <= PRIVATE_STILL


def private(name):
    return name.startswith("_") and not name.startswith("__")
