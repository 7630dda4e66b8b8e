"""Names of networks, and the three look-ups: `create_model`, `list_models`, `describe`.

A family file ends with one call of `register`, which stores its rows (`Variant`); nothing else has to know of it.
"""

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cnnlib import tables
from cnnlib.arguments import unfit
from cnnlib.running import too_small


@dataclass(frozen=True)
class Variant:
    """One row of a family's table: a name and the keyword arguments that make the network.

    `input_size` is the (C, H, W) that the network was designed for. `twin` names the same network in a public
    library, as `"torchvision.alexnet"` or `"timm.resnet50"`, where one exists. `cite` is a key of
    `references.bib`; `register` fills in the family's own key, network and year where a row has none.
    """

    name: str
    summary: str
    config: Mapping[str, object] = field(default_factory=dict)
    input_size: tuple[int, int, int] = (3, 224, 224)
    twin: str | None = None
    cite: str | None = None
    year: int | None = None
    network: Callable[..., nn.Module] | None = None
    family: str | None = None


_variants: dict[str, Variant] = {}


def register(network: Callable[..., nn.Module], variants: Sequence[Variant], *, cite: str, year: int) -> None:
    """Make the rows of a family known; called once, at the end of its file.

    `network` is the class that builds every row without a `network` of its own. Called with images that are too small,
    networks of these classes raise `ValueError` with the smallest size that they take. Raises `ValueError` for a name
    that is taken and for a row that sets an argument which its network does not have.
    """
    family = network.__module__.rpartition(".")[2]
    for row in variants:
        if row.name in _variants and _variants[row.name].family != family:
            raise ValueError(f"model name {row.name!r} is already registered by {_variants[row.name].family!r}")
        own = {key: getattr(row, key) or default
               for key, default in (("network", network), ("cite", cite), ("year", year))}
        variant = Variant(**{**row.__dict__, **own, "family": family})
        _reject_unknown_arguments(variant, variant.config)
        if isinstance(variant.network, type):
            variant.network.__call__ = _call  # type: ignore[method-assign]
        _variants[row.name] = variant


def _call(self: nn.Module, *args, **kwargs) -> object:
    """As for any module, but in our own words where a layer finds its map too small."""
    try:
        return nn.Module.__call__(self, *args, **kwargs)
    except RuntimeError as error:
        images = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if images is not None and (problem := too_small(self, images, error)):
            raise ValueError(problem) from error
        raise


def list_models(pattern: str = "*", *, family: str | None = None) -> list[str]:
    """Sorted names of all networks that match a shell-style `pattern`, such as `"resnet*"`, and a `family`.

    Raises `ValueError` for an unknown family.
    """
    families = sorted({variant.family for variant in _variants.values()})
    if family is not None and family not in families:
        raise ValueError(f"unknown family {family!r}; known families: {', '.join(families)}")
    names = (name for name, variant in _variants.items() if family in (None, variant.family))
    return sorted(fnmatch.filter(names, pattern))


def find_variant(name: str) -> Variant:
    """The row of a registered network. Raises `ValueError` with the nearest names for an unknown one."""
    if not isinstance(name, str) or name not in _variants:
        near = difflib.get_close_matches(str(name), _variants, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "list_models() names all of them"
        raise ValueError(f"unknown model {name!r}; {hint}")
    return _variants[name]


def create_model(name: str, *, weights: str | None = None, **overrides) -> nn.Module:
    """Build a network by name, in training mode: freshly initialized, or with published `weights`.

    `overrides` replace or add keyword arguments of the network, most often `num_classes` and `in_channels`.
    `weights` names published ones, most of them files of torchvision's, some in a Python package of their own;
    `describe(name).weights` lists them with accuracy and preprocessing. Raises `ValueError` for an unknown name (with
    the nearest ones), for an argument that the network lacks, for values of which no network can be made, and for
    weights that do not exist or do not fit; `FileNotFoundError` if they cannot be downloaded, which tells where to put
    the file by hand.

        model = create_model("alexnet", num_classes=10)
        model = create_model("resnet50", weights="IMAGENET1K_V2").eval()
    """
    variant = find_variant(name)
    _reject_unknown_arguments(variant, overrides)
    if weights is None:
        if torch.get_default_device().type == "meta":
            with _WithoutInitialization():
                return _built(variant, overrides)
        return _built(variant, overrides)
    from cnnlib.published import load_published  # only here, because it imports torchvision

    with torch.device("meta"), _WithoutInitialization():  # its tensors will be the published ones
        model = _built(variant, overrides)
    load_published(model, variant.twin, weights, name=name)
    return model


def _built(variant: Variant, overrides: Mapping[str, object]) -> nn.Module:
    """The network. Raises `ValueError` for overrides of which none can be made, in the family's words if it has any."""
    if not overrides:
        return variant.network(**variant.config)
    rows = [row.config for row in _variants.values() if row.network is variant.network]
    rows.append({key: parameter.default for key, parameter in inspect.signature(variant.network).parameters.items()})
    known = {key: [row[key] for row in rows if key in row] for key in overrides}
    model, problem, what = nn.Module(), None, ""
    try:
        model = variant.network(**{**variant.config, **overrides})
        emptied = any(isinstance(value, (tuple, list)) and not value for value in overrides.values())
        if emptied and not list(model.get_submodule("stages").children()):
            what = "no stage is left"
        elif empty := [key for key, weight in model.named_parameters() if not weight.numel()]:
            what = f"{empty[0]} would have no weights"
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and any(f"{key}=" in str(error) for key in overrides):
            raise
        problem, what = error, str(error) or type(error).__name__
    if why := unfit(variant.network, overrides, known):
        raise ValueError(f"{variant.name!r}: {why}") from problem
    if what:
        given = ", ".join(f"{key}={_shown(value)}" for key, value in overrides.items())
        raise ValueError(f"{variant.name!r} cannot be built with {given}: {what}") from problem
    return model


class _WithoutInitialization(TorchFunctionMode):
    """Sets no values: tensors on the meta device have none, and PyTorch takes most of the building time to set them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        fills = getattr(function, "__name__", "") in ("uniform_", "normal_", "zero_", "fill_")
        if fills or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Description:
    """What `describe` knows of a network; prints as a short table."""

    name: str
    summary: str
    family: str
    year: int
    cite: str
    input_size: tuple[int, int, int]
    arguments: Mapping[str, object]
    twin: str | None
    weights: tuple  # of cnnlib.published.PublishedWeights

    @cached_property
    def params(self) -> int:
        """The number of parameters, of a network that is built on the meta device when it is first asked for."""
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in create_model(self.name).parameters())

    def _rows(self, name: str) -> list[tuple[str, str]]:
        return [
            (name, ""),
            ("summary", self.summary),
            ("family", f"cnnlib.models.{self.family}"),
            ("paper", f"{self.cite} ({self.year})"),
            ("input (C, H, W)", tables.full(self.input_size)),
            ("parameters", tables.full(self.params)),
            ("arguments", ", ".join(f"{key}={_shown(value)}" for key, value in self.arguments.items())),
            ("same network in", self.twin or "no other library that we know of"),
            *((f"weights {row.name}", str(row)) for row in self.weights),
        ]

    def __repr__(self) -> str:
        return tables.as_text(self._rows(self.name), (True, True))

    def _repr_markdown_(self) -> str:
        return tables.as_markdown(self._rows(f"`{self.name}`"), (True, True))


def describe(name: str) -> Description:
    """What is known of a network: family, paper, input size, parameter count, arguments, twin, published weights.

    Raises `ValueError` for an unknown name.
    """
    from cnnlib.published import published_weights  # only here, because it imports torchvision

    variant = find_variant(name)
    defaults = {key: parameter.default for key, parameter in inspect.signature(variant.network).parameters.items()}
    return Description(
        name=name,
        summary=variant.summary,
        family=variant.family,
        year=variant.year,
        cite=variant.cite,
        input_size=variant.input_size,
        arguments={**defaults, **variant.config},
        twin=variant.twin,
        weights=published_weights(variant.twin),
    )


def _reject_unknown_arguments(variant: Variant, arguments: Mapping[str, object]) -> None:
    allowed = inspect.signature(variant.network).parameters
    unknown = [key for key in arguments if key not in allowed]
    if unknown:
        raise ValueError(
            f"{variant.name!r} has no argument {', '.join(map(repr, unknown))}; it takes {', '.join(allowed)}"
        )


def _shown(value: object) -> str:
    """A value as source code has it: classes and functions by name, the rest by `repr`."""
    return getattr(value, "__name__", None) or repr(value)
