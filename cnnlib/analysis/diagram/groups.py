"""The groups that layers form: which modules are drawn, and what a network's stem, stages and head are, whatever they
are called.

`arrange` works on a tree of `Group` and `Layer` as the modules make it, and changes it in place.
"""

import math
import re
from collections import Counter
from functools import cached_property
from itertools import groupby
from os.path import commonprefix

from torch import nn

from .labels import CONTAINERS, HEAVY, JOINS, STRIPS, describe
from .structure import MOST_LAYERS, Part, topological

SIDES = ("encoder", "decoder", "down", "up")  # modules whose parts are told by their names
NUMBERED = re.compile(r"(stage|layer|block|level|(^|\.)features|(^|\.)s)s?[._]?\d+$|(^|\.)(stages|layers|features)$")
IN_STAGE = re.compile(r"(stage|layer|block)s?[._]?\d+(\.|$)")


class Member:
    """A layer or a group; `parent` is the group it is in."""

    @property
    def side(self) -> int:
        """Rows of the map that it gives out, of tokens as if they stood in a square; 1 for vectors."""
        shape = self.output_shape
        return shape[1] if len(shape) > 2 else math.isqrt(shape[0]) if len(shape) == 2 else 1


class Layer(Member):
    """Operations that are drawn as one; `sources` are the layers that it reads, or `INPUT`."""

    def __init__(self, parent: "Group", name: str, module: nn.Module | None, step: str, nodes: list, flowing: set):
        self.parent, self.name, self.module, self.step, self.nodes = parent, name, module, step, nodes
        self.kind, self.label, *details = describe(nodes, module, step, flowing)
        self.details = details[0] if details else {}
        self.sources = []
        self.input_shape = self.output_shape = ()

    def layers(self) -> list["Layer"]:
        return [self]

    @property
    def is_strip(self) -> bool:
        return self.kind in STRIPS


class Group(Member):
    """What a module holds, in forward order, or a run of modules."""

    kind = "group"
    is_strip = False

    def __init__(self, name: str, label: str, code: str, parent: "Group | None"):
        self.name, self.label, self.code, self.parent = name, label, code, parent
        self.children = []
        self.is_block = self.is_chain = False

    def layers(self) -> list[Layer]:
        return [layer for child in self.children for layer in child.layers()]

    def groups(self) -> list["Group"]:
        return [child for child in self.children if isinstance(child, Group)]

    def adopt(self, children: list[Member]) -> None:
        self.children = children
        for child in children:
            child.parent = self

    def open(self, chosen: list["Group"], aliases: dict) -> None:
        """Put what is in the chosen children in their places."""
        for child in chosen:
            aliases[child.name] = child.children[0]
        self.adopt([one for child in self.children for one in (child.children if child in chosen else [child])])

    def bundle(self, run: list[Member], role: str) -> "Group":
        """A new group of these, which takes their place as soon as it is adopted."""
        group = Group(_run_name(run, self), role, "", self)
        group.adopt(run)
        return group

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.children[-1].output_shape

    @property
    def sides(self) -> set[int]:
        return {child.side for child in self.children}

    @property
    def is_plain(self) -> bool:
        """Whether it is a chain of layers and nothing else."""
        return self.is_chain and not self.is_block and not self.groups()

    @cached_property
    def height(self) -> int:
        """How many levels of chains of blocks there are: 0 for a block, 1 for a stage, 2 for a network of stages."""
        if not self.groups() or self.is_block or not self.is_chain:
            return 0
        return 1 + max(child.height for child in self.groups())

    @property
    def is_stage(self) -> bool:
        """Whether it is a row of blocks, with or without something that passes by; what adds that is a block, and so is
        a chain of a class whose others add."""
        adds = self.is_block and self.is_chain or any(child.kind == "add" for child in self.children)
        return self.height >= 1 or has_blocks_in_a_row(self) and not adds or (
            self.label in ("stage", "stem", "head") and bool(self.groups()))


def arrange(root: Group) -> dict[str, Member]:
    """Make the groups those that are drawn, and the children of the root stem, stages and head.

    Returns what stands for the modules whose groups are no more: name -> layer or group.
    """
    aliases = {}
    _simplify(root, aliases, _holders(root))
    _make_acyclic(root)
    _mark_blocks(root)
    _open_stages(root, aliases)
    if not _is_chain(root):
        _bundle_runs(root)
        _bundle_ends(root)
        return aliases
    _open_ends(root, aliases)
    if len(root.groups()) < len(root.children):
        _cut_chain(root)
    elif len(root.children) > MOST_LAYERS:
        _bundle_alike(root)
    return aliases


def _holders(group: Group) -> set[tuple[str, str]]:
    """(class, class of what it holds several of) for this group and all inside: a stage and its blocks, say."""
    held, left = Counter(), group.groups()
    while left:
        child = left.pop()
        if child.label in CONTAINERS:
            left += child.groups()
        else:
            held[child.label] += 1
    found = {(group.label, label) for label, count in held.items() if count > 1}
    return found.union(*map(_holders, group.groups()))


def _simplify(group: Group, aliases: dict, holders: set[tuple[str, str]]) -> None:
    """Leave out groups that show nothing: empty ones, those of one child, those of one convolution with norm and
    activation.

    Of a group and its only child the outer class is told, unless it is one that holds several elsewhere, see
    `_holders`.
    """
    children = []
    for child in group.children:
        if isinstance(child, Group):
            _simplify(child, aliases, holders)
            if len(child.children) == 1 == len(child.groups()):
                inner = child.children[0]
                aliases[inner.name] = inner
                inner.name = child.name
                if child.label not in CONTAINERS and (child.label, inner.label) not in holders:
                    inner.label, inner.code = child.label, child.code
                child = inner
            layers = child.layers()
            big = [layer for layer in layers if not layer.is_strip]
            if len(big) <= 1 and not any(layer.kind in JOINS for layer in layers):
                if layers:
                    aliases[child.name] = (big or layers)[0]
                children += child.children
                continue
        children.append(child)
    group.adopt(children)


def _edges_between(group: Group) -> tuple[dict, dict]:
    """For each child what it reads and what reads it, among the children of the group; None for what is outside."""
    def holder(thing):
        while thing is not None and thing.parent is not group:
            thing = thing.parent
        return thing

    reads, readers = ({child: [] for child in group.children} for _ in range(2))
    for child in group.children:
        for layer in child.layers():
            for source in layer.sources:
                other = holder(source) if isinstance(source, Layer) else None
                if other is not child:
                    reads[child].append(other)
                    if other is not None:
                        readers[other].append(child)
    return reads, readers


def _make_acyclic(group: Group) -> None:
    """Open groups that a path leaves and enters again: as boxes they would stand before and behind themselves."""
    while True:
        number = {child: i for i, child in enumerate(group.children)}
        edges = [(number[source], number[child]) for child, sources in _edges_between(group)[0].items()
                 for source in sources if source is not None]
        done = {group.children[i] for i in topological(len(number), edges)}
        stuck = next((child for child in group.groups() if child not in done), None)
        if stuck is None:
            break
        group.open([stuck], {})
    for child in group.groups():
        _make_acyclic(child)


def _is_chain(group: Group) -> bool:
    """Whether the children follow one after the other and nothing passes by."""
    reads, readers = _edges_between(group)
    from_outside = sum(None in found for found in reads.values())
    return from_outside <= 1 and all(len(set(found)) <= 1 for found in (*reads.values(), *readers.values()))


def _mark_blocks(root: Group) -> None:
    """Set `is_block`: blocks are modules in which paths part and meet; so are others of their class, which happen not
    to.

    (An inverted residual of stride 2 has no shortcut, and is a block all the same.)
    """
    groups, left = [], [root]
    while left:
        group = left.pop()
        groups.append(group)
        left += group.groups()
        group.is_chain = _is_chain(group)
    blocks = {group.label for group in groups if not group.is_chain} - set(CONTAINERS)
    for group in groups:
        group.is_block = group is not root and (not group.is_chain or group.label in blocks)


def has_blocks_in_a_row(group: Group) -> bool:
    """Whether a group inside works on what another group inside made: layers of a dense block, not branches of a
    module."""
    reads, _ = _edges_between(group)
    behind = set()  # children that read a group, directly or through layers
    for child in group.children:
        if any(isinstance(source, Group) or source in behind for source in reads[child]):
            behind.add(child)
    return any(isinstance(child, Group) for child in behind)


def _open_stages(root: Group, aliases: dict) -> None:
    """Open what holds several stages, whose maps differ in size, and long chains in which the size changes again and
    again, such as VGG's `features`; rows of blocks in containers of their own become parts of their stage."""
    while several := [child for child in root.groups() if child.height >= 2 and (
            len(child.sides) > 1 or child.name.endswith("stages"))]:
        root.open(several, aliases)
    root.open([child for child in root.groups() if child.is_chain and not child.is_block
               and len(child.sides - {0, 1}) > 2], aliases)
    for child in root.groups():
        if child.height >= 1:
            _flatten(child, aliases)


def _flatten(stage: Group, aliases: dict) -> None:
    rows = [child for child in stage.groups() if child.label in CONTAINERS and not child.is_block and child.height >= 1]
    for row in rows:
        _flatten(row, aliases)
    stage.open(rows, aliases)


def _open_ends(root: Group, aliases: dict) -> None:
    """Groups of layers alone that stand before the first block, or behind the last, with other things, are opened: they
    are a part of the stem, or of the head."""
    holding = [i for i, child in enumerate(root.children) if isinstance(child, Group) and not child.is_plain]
    if not holding:
        return
    for run in (root.children[: holding[0]], root.children[holding[-1] + 1 :]):
        loose = [child for child in run if isinstance(child, Group) and not NUMBERED.search(child.name)]
        beside = any(isinstance(child, Layer) and not IN_STAGE.search(child.name) for child in run)
        if len(loose) + beside > 1:
            root.open(loose, aliases)


def _cut_chain(root: Group) -> None:
    """Make a chain of layers and groups stem, stages and head."""
    stages = [child for child in root.groups() if child.is_stage]
    blocks = [child for child in root.groups() if child.side > 1]
    runs = _runs(root.children, stages, root.children.index(blocks[0]) if blocks else -1)
    for i in range(len(runs) - 2, 0, -1):  # norms and activations alone go with what follows them
        before_a_block = len(runs[i + 1]) == 1 and isinstance(runs[i + 1][0], Group)
        if all(thing.is_strip for thing in runs[i]) and not before_a_block:
            runs[i : i + 2] = [runs[i] + runs[i + 1]]
    if stages or blocks:
        runs = _with_ends(runs)
    parts = []
    for i, run in enumerate(runs):
        is_last, plain = i == len(runs) - 1, all(isinstance(thing, Layer) for thing in run)
        is_head = is_last and run[-1].side == 1
        if len(run) == 1 and (not plain or (stages or blocks) and is_last and not is_head):
            parts.append(run[0])
            continue
        between = any(thing in stages for later in runs[i + 1 :] for thing in later)
        role = "stem" if i == 0 and (stages or blocks) and plain else "transition" if plain and between else "stage"
        parts.append(root.bundle(run, "head" if is_head else role))
    root.adopt(parts)


def _runs(children: list[Member], stages: list[Group], first: int) -> list[list[Member]]:
    """The children of a chain in runs: a stage, blocks of one class and size, or layers and blocks up to where the maps
    become smaller, the `first` block at the earliest."""
    runs, in_head = [[]], False

    def close():
        if runs[-1]:
            runs.append([])

    for i, child in enumerate(children):
        run, side, following = runs[-1], child.side, children[i + 1 : i + 2]
        shrinks = i == 0 or side < children[i - 1].side
        if stages and isinstance(child, Group):
            if child in stages or not run or not _alike(run[-1], child):
                close()
            runs[-1].append(child)
            if child in stages:
                close()
            continue
        answers = isinstance(child, Layer) and (
            child.kind in ("flatten", "fc") or child.label.startswith(("average pool to", "global")))
        if not in_head and i and (side == 1 or answers):
            close()
            in_head = True
        elif stages and run and isinstance(run[-1], Group) or not in_head and (
                i == first and not stages or i > first and shrinks and child.kind in ("conv", "group")
                and not all(thing.is_strip for thing in run)):
            close()
        runs[-1].append(child)
        if not in_head and child.kind == "pool" and shrinks and i >= first and side > 1 and not (
                following and following[0].is_strip):
            close()
    return [run for run in runs if run]


def _alike(thing: Member, other: Group) -> bool:
    return isinstance(thing, Group) and thing.label == other.label and thing.side == other.side


def _with_ends(runs: list[list[Member]]) -> list[list[Member]]:
    """All layers before the first block as one run, and all behind the last as another, but for those of a numbered
    stage."""
    def in_stage(thing):
        return isinstance(thing, Group) or IN_STAGE.search(thing.name)

    holding = [i for i, run in enumerate(runs) if any(map(in_stage, run))]
    first, last = holding[0], holding[-1]
    cut = 1 + max(i for i, thing in enumerate(runs[last]) if in_stage(thing))
    if any(thing.kind == "pool" for thing in runs[last][cut:]):
        cut = len(runs[last])
    stem = [thing for run in runs[:first] for thing in run]
    head = [thing for run in (runs[last][cut:], *runs[last + 1 :]) for thing in run]
    return [run for run in (stem, *runs[first:last], runs[last][:cut], head) if run]


def _bundle_alike(root: Group) -> None:
    """Blocks of one class and size in a row as a stage, in a network that is a long row of blocks."""
    children = []
    for _, run in groupby(root.children, key=lambda child: (child.label, child.side, child.is_block or id(child))):
        run = list(run)
        if len(run) > 1:
            run = [root.bundle(run, "stage")]
            run[0].is_chain = True
        children += run
    root.adopt(children)


def _bundle_runs(root: Group) -> None:
    """Stages of a network that is no chain, such as a U-Net: what follows one after the other at one size, read from
    outside at its end alone.

    A join takes in what is resized, cropped or fitted for it by one convolution and read by nothing else.
    """
    if len(root.children) <= MOST_LAYERS:
        return
    reads, readers = _edges_between(root)
    order = {child: i for i, child in enumerate(root.children)}
    runs = {}  # the last of a run -> all of it

    def goes_on(before, child):
        if isinstance(before, Group):
            return before.label == child.label if isinstance(child, Group) else child.is_strip
        return True

    for child in root.children:
        sources = list(dict.fromkeys(source for source in reads[child] if source is not None))
        alone = [source for source in sources if set(readers[source]) == {child} and source in runs
                 and 2 / 3 < source.side / child.side < 3 / 2]  # without padding sizes change a little
        if len(sources) == 1 and None not in reads[child] and alone and goes_on(sources[0], child):
            runs[child] = [*runs.pop(sources[0]), child]
        elif len(sources) > 1 and child.kind in JOINS:
            fitted = [source for source in alone if all(isinstance(thing, Layer) for thing in runs[source])
                      and sum(thing.kind in HEAVY for thing in runs[source]) < 2]
            runs[child] = [thing for source in fitted for thing in runs.pop(source)] + [child]
        else:
            runs[child] = [child]
    children = []
    for run in sorted(runs.values(), key=lambda run: order[run[-1]]):
        is_head = run[-1] is root.children[-1] and all(isinstance(thing, Layer) for thing in run)
        children += [root.bundle(run, "head" if is_head else "stage")] if len(run) > 1 else run
    root.adopt(children)


def _bundle_ends(root: Group) -> None:
    """Layers before the first and behind the last group of a network that is no chain, as stem and head."""
    children = root.children
    groups = [i for i, child in enumerate(children) if isinstance(child, Group)]
    if not groups:
        return
    _, readers = _edges_between(root)
    first = next((i for i in range(groups[0]) if len(set(readers[children[i]])) != 1), groups[0])
    ends = []
    for role, run in (("stem", children[:first]), ("head", children[groups[-1] + 1 :])):
        joins = any(layer.kind in JOINS for layer in run)
        ends.append([root.bundle(run, role)] if len(run) > 1 and not joins else run)
    root.adopt([*ends[0], *children[first : groups[-1] + 1], *ends[1]])


def _run_name(run: list[Member], root: Group) -> str:
    """One name for a run of modules: "stem" if it is all of it, else "features.0-2", "conv1-maxpool"."""
    layers = [layer for thing in run for layer in thing.layers()]
    names = [layer.name for layer in layers if layer.name]
    common = ".".join(commonprefix([name.split(".") for name in names]))
    if common and common != names[0] and sum(layer.name.startswith(common + ".") for layer in root.layers()) == len(
            layers):
        return common
    names = list(dict.fromkeys(thing.name for thing in run if thing.name)) or ["functions"]
    first, last = names[0], names[-1]
    if first == last:
        return first + ("" if len(run) == 1 else " and more")
    (outer, _, _), (other, _, tail) = first.rpartition("."), last.rpartition(".")
    return f"{first}-{tail}" if outer and outer == other else f"{first}-{last}"


def name_stages(parts: list[Part]) -> None:
    """Labels for the parts of the whole: stem, stage 1, stage 2, ..., head; where a module has a name of its own, that.

    A block that stands alone and is of a class that no stage holds, such as what merges patches between two stages of a
    Swin Transformer, is told by its class.
    """
    numbers: Counter[str] = Counter()
    tops = [parts[child] for child in parts[0].children if not parts[child].is_layer]
    held = {parts[child].label for part in tops for child in part.children if not parts[child].is_layer}
    for part in tops:
        last = part.name.rsplit(".", 1)[-1]
        numbered = NUMBERED.search(part.name)
        stage, block = part.details.get("stage"), part.details.get("block")
        is_stage = part.label in (*CONTAINERS, "stage") or stage or block or numbered
        alone = block and part.label not in (*CONTAINERS, *held) and "features" in part.name
        side = next((piece for piece in re.split(r"[.-]", part.name) if piece in SIDES), "")
        if last in ("stem", "head", "classifier"):
            part.label = "head" if last == "classifier" else last
        elif part.label in ("stem", "head", "transition"):
            continue
        elif side:
            numbers[side] += 1
            part.label = f"{side} {numbers[side]}"
        elif alone or not is_stage:
            part.label = part.label.strip("_")
        elif part.code and last.isidentifier() and not numbered:
            part.label = last
        else:
            numbers["stage"] += 1
            part.label = f"stage {numbers['stage']}"
    for part in tops:
        side = part.label.removesuffix(" 1")
        if side in SIDES and numbers[side] == 1:
            part.label = side
