"""What is wrong with the geometry of a drawing: overlaps, clipped or covered text, lines across boxes. Nothing is a
good answer.

Text is as wide as `cnnlib.analysis.drawing.text_width` says, which is at least as wide as any usual font makes it, and
as high as the capitals and descenders of its size.
"""

from itertools import combinations

from cnnlib.analysis.drawing import SIZES, Scene, text_width

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
    texts = [text for text in texts_of(scene) if text[5].kind == "shape"]
    found = []
    for i, x, y in points:
        on_edge = any(left - 1 <= x <= right + 1 and top - 1 <= y <= bottom + 1 and (
            min(abs(x - left), abs(x - right), abs(y - top), abs(y - bottom)) <= 1) for left, top, right, bottom in edges)
        on_line = any(i != j and min(a, c) - 1 <= x <= max(a, c) + 1 and min(b, d) - 1 <= y <= max(b, d) + 1
                      for j, a, b, c, d in segments)
        on_end = any(i != j and abs(x - a) <= 1 and abs(y - b) <= 8 for j, a, b in points)  # before the tip of an arrow
        beside = any(left <= x <= right and min(abs(y - top), abs(y - bottom)) <= 8 for left, top, right, bottom, *_ in texts)
        at_border = y <= 20 or y >= scene.height - 20
        if not (on_edge or on_line or on_end or beside or at_border):
            found.append(f"a line ends in nothing at {x:.0f}, {y:.0f}")
    return found


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
