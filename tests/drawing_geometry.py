"""What is wrong with the geometry of a drawing: overlaps, clipped or covered text, lines across boxes. Nothing is a
good answer. And what its lines join, found by following them.

Text is as wide as `cnnlib.analysis.drawing.shapes.text_width` says, which is at least as wide as any usual font makes it, and
as high as the capitals and descenders of its size.
"""

from itertools import combinations

import numpy as np

from cnnlib.analysis.drawing.shapes import SIZES, Scene, text_width
from cnnlib.analysis.diagram.structure import INPUT, OUTPUT, Box, Graph, Parallel, Repeat, Series, Unit

SLACK = 0.6  # pixels by which things may touch


def boxes_of(scene: Scene):
    """(left, top, right, bottom, what) of every box, circle and solid that is drawn opaque."""
    for item in scene.items:
        for shape in item.shapes:
            if shape[0] == "r" and shape[1] == "box":
                x, y, width, height = shape[2:6]
                yield (x, y, x + width, y + height, f"box of part {item.part}")
            elif shape[0] == "c":
                x, y, radius = shape[2:5]
                yield (x - radius, y - radius, x + radius, y + radius, f"join {item.part}")
        points = [v for shape in item.shapes if shape[0] == "p" and shape[1] in ("face", "side", "top")
                  for v in shape[2]]
        if points:
            yield (min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2]),
                   f"solid of part {item.part}")


def texts_of(scene: Scene):
    """(left, top, right, bottom, text, item) of every line of text."""
    for item in scene.items:
        for shape in item.shapes:
            if shape[0] == "t":
                _, style, x, y, anchor, text = shape
                width = text_width(text, style)
                left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
                yield (left, y - 0.5 * SIZES[style], left + width, y + 0.5 * SIZES[style], text, item)


def points_of(scene: Scene):
    """Points along every line and curve, at most a few pixels apart."""
    for item in scene.items:
        for shape in item.shapes:
            if shape[0] not in "lb" or shape[1] != "line":
                continue
            pairs = list(zip(shape[2][::2], shape[2][1::2]))
            for (x, y), (to_x, to_y) in zip(pairs, pairs[1:]):
                steps = max(2, int((abs(to_x - x) + abs(to_y - y)) / 4))
                for i in range(1, steps):
                    t = i / steps
                    across = 3 * t * t - 2 * t**3 if shape[0] == "b" else t  # of a curve whose ends point up and down
                    down = 1.5 * t * (1 - t) * (1 - t) + 1.5 * t * t * (1 - t) + t**3 if shape[0] == "b" else t
                    yield x + (to_x - x) * across, y + (to_y - y) * down


def loose_ends(scene: Scene) -> list[str]:
    """Lines that begin or end in nothing: on no edge of a box, circle or frame, on no other line, beside no text.

    For drawings of layers and boxes; in strips of solids arrows stand between the solids.
    """
    if any(shape[0] == "p" and shape[1] == "face" for item in scene.items for shape in item.shapes):
        return []
    edges = [(shape[2], shape[3], shape[2] + shape[4], shape[3] + shape[5]) for item in scene.items
             for shape in item.shapes if shape[0] == "r"]
    edges += [(shape[2] - shape[4], shape[3] - shape[4], shape[2] + shape[4], shape[3] + shape[4])
              for item in scene.items for shape in item.shapes if shape[0] == "c"]
    lines = [shape for item in scene.items for shape in item.shapes if shape[0] in "lb" and shape[1] == "line"]
    segments = [(i, *shape[2][j : j + 4]) for i, shape in enumerate(lines) if shape[0] == "l"
                for j in range(0, len(shape[2]) - 2, 2)]
    points = [(i, *shape[2][j : j + 2]) for i, shape in enumerate(lines) for j in (0, len(shape[2]) - 2)]
    if not points:
        return []
    texts = [text[:4] for text in texts_of(scene) if text[5].kind == "shape"]
    # Every point, down, against every other thing, across.
    i, x, y = np.array(points).T[..., None]
    left, top, right, bottom = _columns(edges, 4)
    on_edge = (left - 1 <= x) & (x <= right + 1) & (top - 1 <= y) & (y <= bottom + 1) & (
        np.minimum.reduce(np.broadcast_arrays(abs(x - left), abs(x - right), abs(y - top), abs(y - bottom))) <= 1)
    j, a, b, c, d = _columns(segments, 5)
    on_line = (i != j) & (np.minimum(a, c) - 1 <= x) & (x <= np.maximum(a, c) + 1) & (
        np.minimum(b, d) - 1 <= y) & (y <= np.maximum(b, d) + 1)
    j, a, b = _columns(points, 3)
    on_end = (i != j) & (abs(x - a) <= 1) & (abs(y - b) <= 8)  # before the tip of an arrow
    left, top, right, bottom = _columns(texts, 4)
    beside = (left <= x) & (x <= right) & (np.minimum(abs(y - top), abs(y - bottom)) <= 8)
    at_border = (y <= 20) | (y >= scene.height - 20)
    held = np.concatenate([on_edge, on_line, on_end, beside, at_border], axis=1).any(axis=1)
    return [f"a line ends in nothing at {x:.0f}, {y:.0f}" for (_, x, y), holds in zip(points, held) if not holds]


def _columns(rows, count):
    """The columns of a table, each as a row of an array that has a row."""
    return np.array(rows, dtype=float).reshape(-1, count).T[:, None]


def overlap(one, other) -> bool:
    return (min(one[2], other[2]) - max(one[0], other[0]) > SLACK
            and min(one[3], other[3]) - max(one[1], other[1]) > SLACK)


def faults_of(scene: Scene) -> list[str]:
    found = loose_ends(scene)
    boxes, texts = list(boxes_of(scene)), list(texts_of(scene))
    for left, top, right, bottom, text, *_ in [*boxes, *texts]:
        if left < 0 or top < 0 or right > scene.width or bottom > scene.height:
            found.append(f"{text!r} is cut off: {left:.0f} {top:.0f} {right:.0f} {bottom:.0f} "
                         f"in {scene.width} x {scene.height}")
    for one, other in close(boxes):
        if overlap(one, other):
            found.append(f"{one[4]} overlaps {other[4]}")
    for one, other in close(texts):
        if overlap(one, other):
            found.append(f"text {one[4]!r} overlaps text {other[4]!r}")
    for text in texts:
        own = [shape for shape in text[5].shapes if shape[0] == "r" and shape[1] == "box"]
        mine = {(shape[2], shape[3]) for shape in own}
        if own and not any(shape[2] <= text[0] and text[2] <= shape[2] + shape[4] and shape[3] <= text[1] + 1.5
                           and text[3] - 1.5 <= shape[3] + shape[5] for shape in own):
            found.append(f"text {text[4]!r} sticks out of its box")
        for box in boxes:
            if (box[0], box[1]) not in mine and box[4] != f"solid of part {text[5].part}" and overlap(text, box):
                found.append(f"text {text[4]!r} lies on {box[4]}")
    rows = {}
    for thing in [*boxes, *texts]:
        for row in range(int(thing[1] // 40), int(thing[3] // 40) + 1):
            rows.setdefault(row, []).append(thing)
    for x, y in points_of(scene):
        if not (0 <= x <= scene.width and 0 <= y <= scene.height):
            found.append(f"a line leaves the drawing at {x:.0f}, {y:.0f}")
        for thing in rows.get(int(y // 40), ()):
            if thing[0] + 1 < x < thing[2] - 1 and thing[1] + 1 < y < thing[3] - 1:
                found.append(f"a line runs over {thing[4]!r}")
    return list(dict.fromkeys(found))


def close(things):
    """Pairs that lie at one height, in few comparisons."""
    rows = {}
    for thing in things:
        for row in range(int(thing[1] // 60), int(thing[3] // 60) + 1):
            rows.setdefault(row, []).append(thing)
    seen = set()
    for row in rows.values():
        for one, other in combinations(row, 2):
            if (id(one), id(other)) not in seen:
                seen.add((id(one), id(other)))
                yield one, other


# What lines join


def stacks_of(scene: Scene):
    """(boxes, parts) of everything that lines can join: boxes that touch, such as a convolution and its norm, are one."""
    boxes = [(*box[:4], box[4], item.part) for item in scene.items if item.kind not in ("frame", "repeat")
             for box in boxes_of(Scene(0, 0, [item], "", ""))]

    def touch(one, other):
        across = min(one[2], other[2]) - max(one[0], other[0])
        down = min(one[3], other[3]) - max(one[1], other[1])
        return across > 1 and abs(down) < 0.7 or down > 1 and abs(across) < 0.7

    stacks = []
    for box in boxes:
        near = [stack for stack in stacks if any(touch(box, other) for other in stack)]
        stacks = [stack for stack in stacks if stack not in near] + [[box, *(other for stack in near for other in stack)]]
    return [(stack, {box[5] for box in stack}) for stack in stacks]


def paths_of(scene: Scene):
    """Points along every line from its beginning to its end, less than two pixels apart."""
    for item in scene.items:
        if item.kind != "line":
            continue
        points = []
        for shape in item.shapes:
            if shape[0] in "lb":
                pairs = list(zip(shape[2][::2], shape[2][1::2]))
                for (x, y), (to_x, to_y) in zip(pairs, pairs[1:]):
                    steps = max(1, int((abs(to_x - x) + abs(to_y - y)) / 1.5))
                    for i in range(steps + 1):
                        t = i / steps
                        across = 3 * t * t - 2 * t**3 if shape[0] == "b" else t
                        down = 1.5 * t * (1 - t) * (1 - t) + 1.5 * t * t * (1 - t) + t**3 if shape[0] == "b" else t
                        points.append((x + (to_x - x) * across, y + (to_y - y) * down))
        yield points


def connections(scene: Scene) -> set:
    """Pairs (parts above, parts below) of everything that lines lead from and to, each a frozenset of ids."""
    stacks, paths = stacks_of(scene), list(paths_of(scene))

    def on_edge(point, stack):
        return any(box[0] - 1 <= point[0] <= box[2] + 1 and box[1] - 1 <= point[1] <= box[3] + 1
                   and min(abs(point[0] - box[0]), abs(point[0] - box[2]), abs(point[1] - box[1]), abs(point[1] - box[3])) <= 1
                   for box in stack)

    cells = {}
    for i, path in enumerate(paths):
        for x, y in path:
            cells.setdefault((x // 4, y // 4), {}).setdefault(i, []).append((x, y))

    def through(point):
        """The lines that come past a point."""
        column, row = point[0] // 4, point[1] // 4
        return {i for dx in (-1, 0, 1) for dy in (-1, 0, 1) for i, points in cells.get((column + dx, row + dy), {}).items()
                if any(abs(x - point[0]) + abs(y - point[1]) <= 1.3 for x, y in points)}

    def apart(one, other):
        return abs(one[0] - other[0]) + abs(one[1] - other[1]) > 1.3

    branches, goes_on = ({i: set() for i in range(len(paths))} for _ in range(2))
    for i, path in enumerate(paths):
        for other in through(path[0]) - {i}:
            (branches if apart(path[0], paths[other][-1]) else goes_on)[other].add(i)
        for other in through(path[-1]) - {i}:
            if apart(path[-1], paths[other][-1]):
                goes_on[i].add(other)  # it runs into it
    found = set()
    ends = [[j for j, (stack, _) in enumerate(stacks) if on_edge(path[-1], stack)] for path in paths]
    for stack, parts in stacks:
        left = [i for i, path in enumerate(paths) if on_edge(path[0], stack)]
        seen = set(left)
        while left:
            i = left.pop()
            reached = [stacks[j][1] for j in ends[i] if stacks[j][1] is not parts]
            found |= {(frozenset(parts), frozenset(other)) for other in reached}
            for other in (branches[i] if reached else branches[i] | goes_on[i]) - seen:
                seen.add(other)
                left.append(other)
    return found


def first_copies(diagram, series) -> dict:
    """Part -> what is drawn in its place, where it is one of several that are drawn once, or a half of a separable
    convolution."""
    found = {}
    for item in series.items:
        if isinstance(item, Unit):
            found |= {one.id: other.id for one, other in zip(item.layers, item.layers[1:])
                      if one.details.get("depthwise") and other.kind == "conv"}
        elif isinstance(item, Repeat):
            for copy in item.copies[1:]:
                for part, first in zip(copy, item.copies[0]):
                    found |= {one.id: other.id for one, other in zip(diagram.layers(part), diagram.layers(first))}
                    found[part.id] = first.id
            found = first_copies(diagram, item.body) | found
        elif isinstance(item, Parallel):
            for branch in item.branches:
                found |= first_copies(diagram, branch)
        elif isinstance(item, Graph):
            for branch in (Series(item.nodes), *(branch for _, _, branch in item.edges)):
                found |= first_copies(diagram, branch)
        elif isinstance(item, Box) and item.inner is not None:
            found |= first_copies(diagram, item.inner)
    return found


def wrong_connections(diagram, name: str, zoom, scene: Scene) -> list[str]:
    """Lines that are not there, and lines that should not be, of a drawing of `name`, against what layers read.

    Not for strips of solids, and not for blocks in frames, whose inputs and outputs have names of their own there.
    """
    part = diagram.find(name)
    if any(shape[1] == "face" for item in scene.items for shape in item.shapes) or (
            zoom == "block" and part.details.get("stage")):
        return []
    copies = first_copies(diagram, diagram.structure(name, zoom))
    stacks = stacks_of(scene)
    drawn = {part: (min(box[1] for box in stack), max(box[3] for box in stack), frozenset(parts))
             for stack, parts in stacks for part in parts if part is not None}
    inside = {layer.id for layer in diagram.layers(part)}

    def shown(id):
        while id is not None and id >= 0:
            first = id
            while first in copies and copies[first] != first:
                first = copies[first]  # what repeats within what repeats
            if first in drawn:
                return drawn[first]
            id = diagram.parts[id].parent
        return None

    expected = set()
    for a, b in diagram.edges:
        if a == INPUT or b == OUTPUT or b not in inside:
            continue
        source = drawn.get(a) if a not in inside else shown(a)
        target = shown(b)
        if source and target and source[2] != target[2] and target[0] >= source[1] - 20:  # not from turn to turn of a repeat
            expected.add((source[2], target[2]))
    told = {(a, b) for a, b in connections(scene) if None not in a | b}
    say = {parts: " ".join(diagram.parts[id].label for id in sorted(parts)) for _, _, parts in drawn.values()}
    return [f"no line from {say[a]!r} to {say[b]!r}" for a, b in expected - told] + [
        f"a line from {say[a]!r} to {say[b]!r}" for a, b in told - expected]
