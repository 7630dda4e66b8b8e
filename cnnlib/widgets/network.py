"""Any network as an explorer: from the whole through a stage to a layer, its numbers, its formula and what it sees."""

import base64
import functools
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import traitlets
from torch import nn

from cnnlib.analysis import AnalysisError, receptive_field
from cnnlib.analysis.diagram import Diagram, diagram
from cnnlib.analysis.drawing import ends_in, scene
from cnnlib.analysis.drawing.layout import stand_in
from cnnlib.analysis.drawing.shapes import COLOUR_OF, LINE, Scene, number, strokes, style_sheet, text_width
from cnnlib.analysis.diagram.structure import ENDS, Part, Repeat, Thing
from cnnlib.data import book_file

from .base import Explorer, check_choice, check_input_size, module, named_model, style

PHOTOGRAPH_SIDE = 160  # pixels of the photograph that are kept
COLOURS = ("kind", "params", "macs", "activations")


class NetworkExplorer(Explorer):
    """The drawing of a network, to walk in: open a stage, a block, choose a layer.

        NetworkExplorer("resnet50")
        NetworkExplorer(model, input_size=(3, 224, 224))

    `model` is a name or a module; a module needs `input_size`. Traits: `part`, the dotted name of what is open ("" is
    the whole network), `layer`, the number of what is chosen in it (-1 for nothing), `colour`, one of "kind",
    "params", "macs" and "activations", and `follow`, whether all that lies on no path through the chosen layer is
    dimmed. What repeats is kept once.

    Raises `ValueError` for an unknown network, a wrong size and a part that is not there.
    """

    _esm = module("network")
    _css = style("network") + style_sheet()
    part = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Any().tag(sync=True)
    colour = traitlets.Unicode().tag(sync=True)
    follow = traitlets.Bool().tag(sync=True)

    def __init__(self, model: str | nn.Module, *, input_size: Sequence[int] | None = None, part: str = ""):
        name, network, designed = named_model(model)
        if input_size is None and designed is None:
            raise ValueError(f"{name} has no designed input size; pass input_size=(channels, height, width)")
        size = check_input_size(designed if input_size is None else input_size)
        data = {**_packed(diagram(network, size, title=name), _fields(network, size)), "photo": _photograph(*size[1:])}
        super().__init__(data, part=check_choice("part", part, list(data["groups"])), layer=-1, colour="kind",
                         follow=False)

    @property
    def summary(self) -> str:
        return f"{self.data['title']} at {'x'.join(map(str, self.data['input']))}"

    @traitlets.validate("part", "colour")
    def _check(self, proposal):
        allowed = {"part": list(self.data["groups"]), "colour": COLOURS}
        return check_choice(proposal.trait.name, proposal.value, allowed[proposal.trait.name])

    @traitlets.validate("layer")
    def _check_layer(self, proposal):
        template = self.data["templates"][self.data["groups"][self.part][0]]
        return check_choice("layer", proposal.value, [-1, *(row[0] for row in template["rows"])])


def _fields(network: nn.Module, size: tuple[int, int, int]) -> dict[str, list]:
    """Module -> [rows, columns, stride, first pixel] of a field on the photograph; without those that cannot be
    followed."""
    try:
        fields = receptive_field(network, size)
    except (AnalysisError, ValueError):
        return {}
    found = {}
    for name, field in fields.items():
        stride = [float(length) for length in field.stride]
        found[name] = [*field.size, *(int(length) if length == int(length) else length for length in stride),
                       *field.start, *field.units, int(field.global_context)]
    return found


def _packed(drawn: Diagram, fields: dict) -> dict:
    """Everything that the view shows, what looks and counts the same kept once.

    `groups`: name -> [number of a template, numbers of fields of its rows, title], and where several maps come in or go
    out, stand-in -> [where from or to, module]; `templates`: numbers of scenes, rows and edges of a group, ids counted
    from the group's own, those of maps that come from outside -2, -3, ...; `scenes`: what is drawn, for wide and narrow
    pages where they differ, with the number of its pair in `lines`: the lines and the heads of arrows. A row is
    [id, name, colour, label, code, input, output, params, macs, activations, details, repeats, opens].
    """
    templates, groups, codes, known_fields, keys, drawings, wiring = [], {}, {}, {}, {}, {}, {}
    waiting = [drawn.parts[0]]
    structure_of = functools.cache(drawn.structure)
    widest = max([text_width(end.label, "small") for name in _with_ends(drawn) for kind in ENDS
                  for end in ends_in(structure_of(name), kind)], default=0)
    while waiting:
        group = waiting.pop(0)
        if group.name in groups and group.parent is not None:
            continue
        scenes = [scene(drawn, group.name, narrow=True, ends=widest)]
        if group.parent is None or scenes[0].stacked:  # all others are narrow enough for wide pages, too
            scenes.insert(0, scene(drawn, group.name, ends=widest))
        structure = structure_of(group.name)
        ends = {stand_in(end): [end.label, end.name] for kind in ENDS for end in ends_in(structure, kind)}
        given = {end.id: replace(end, name="", label=stand_in(end), code="", details={})
                 for end in ends_in(structure, "input") if end.id >= 0}
        ids = sorted({item.part for one in scenes for item in one.items if item.part is not None
                      and item.part != group.id}, key=lambda id: (id not in given, id))
        numbers = {id: -1 - int(end.label[1:]) for id, end in given.items()}
        numbers |= {part.id: part.id - group.id for part in drawn.parts if part.id not in given}
        repeats = _repeats(structure)
        inside = [given.get(id, drawn.parts[id]) for id in ids]
        rows = [[numbers[part.id], *_row(group, part, codes, repeats.get(part.id))] for part in inside]
        plain = [json.dumps(_plain(one, numbers, wiring)) for one in scenes]
        template = {"scenes": [drawings.setdefault(text, len(drawings)) for text in plain], "rows": rows,
                    "edges": _edges(drawn, inside, numbers)}
        key = json.dumps(template)
        if key not in keys:
            keys[key] = len(templates)
            templates.append(template)
        seen = []
        for part in inside:
            known = part.kind == "input" or part.kind != "other" and (part.code or not part.is_layer)
            field = fields.get(drawn.parts[part.id].name) if known else None
            seen.append(-1 if field is None else known_fields.setdefault(tuple(field), len(known_fields)))
        groups[group.name] = [keys[key], seen, group.label if group.parent is not None else drawn.title,
                              *([ends] if ends else [])]
        waiting += [part for part in inside if not part.is_layer]
    whole = drawn.parts[0]
    return {"title": drawn.title, "input": list(drawn.input_shape),
            "totals": [whole.params, whole.macs, whole.activations],
            "scenes": [json.loads(text) for text in drawings], "lines": [list(pair) for pair in wiring],
            "templates": templates, "groups": groups,
            "codes": list(codes), "fields": list(map(list, known_fields))}


def _with_ends(drawn: Diagram) -> list[str]:
    """Names of the groups that read, or give out, more than one map: only they name their ends."""
    around = {}
    for part in drawn.parts:  # a group stands before what is in it
        around[part.id] = set() if part.parent is None else {part.parent, *around[part.parent]}
    ends = defaultdict(set)
    for source, target in drawn.edges:
        outside, inside = around.get(source, set()), around.get(target, set())
        for group in inside - outside:
            ends["input", group].add(source)
        for group in outside - inside:
            ends["output", group].add(source)
    several = {group for (_, group), sources in ends.items() if len(sources) > 1}
    return [drawn.parts[group].name for group in sorted(several)]


USUAL = {"kernel": None, "in": None, "out": None, "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1,
         "bias": False}


def _row(group: Part, part: Part, codes: dict, repeat: tuple | None) -> list:
    details = {key: part.details[key] for key, usual in USUAL.items() if part.details.get(key, usual) != usual}
    again = [] if repeat is None else [repeat[0], _suffix(group, repeat[1])]
    return [_suffix(group, part.name), part.kind, part.label,
            codes.setdefault(part.code, len(codes)),
            list(part.input_shape), list(part.output_shape), part.params, part.macs, part.activations, details, again,
            int(not part.is_layer)]


def _suffix(group: Part, name: str) -> str:
    """The name without that of the group, which the view puts in front of what begins with a full stop."""
    inside = group.name and name.startswith(group.name + ".")
    return name[len(group.name) :] if inside else "." if name == group.name and group.name else name


def _repeats(thing: Thing) -> dict[int, tuple[int, str]]:
    """Part -> (times, name of the last copy), for what is drawn once and stands there several times."""
    found = {}
    for inside in thing.things():
        found |= _repeats(inside)
    if isinstance(thing, Repeat):
        found |= {first.id: (thing.times, last.name) for first, last in zip(thing.copies[0], thing.copies[-1])}
    return found


def _edges(drawn: Diagram, inside: list[Part], numbers: dict[int, int]) -> list[list[int]]:
    """What flows between the parts that are drawn, by their numbers."""
    holder = {layer.id: numbers[part.id] for part in inside for layer in drawn.layers(part)}
    pairs = {(holder[a], holder[b]) for a, b in drawn.edges if a in holder and b in holder}
    return sorted([a, b] for a, b in pairs if a != b)


def _plain(one: Scene, numbers: dict[int, int], wiring: dict) -> dict:
    """A scene with parts by their numbers, and its lines by theirs in `wiring`.

    Boxes and texts stand at whole pixels, all else to a tenth of one.
    """
    def short(value):
        if isinstance(value, list) and value and value[0] == "t":
            name, x, y, anchor, text = value[1:]
            return [{"middle": "t", "start": "u", "end": "v"}[anchor], name, round(x), round(y), text]
        if isinstance(value, list) and value and value[0] in ("r", "b"):
            kind, name, x, y, width, height, *more = value
            return [kind, name, round(x), round(y), round(x + width) - round(x), round(y + height) - round(y), *more]
        if isinstance(value, list) and value and isinstance(value[0], list):
            return list(map(short, _boxed(_joined(value))))
        if isinstance(value, list):
            return [short(inner) for inner in value]
        if isinstance(value, float):
            rounded = round(value, 1)
            return int(rounded) if rounded == int(rounded) else rounded
        return value

    items = [[-1 if item.part is None else numbers[item.part], COLOUR_OF.get(item.kind, item.kind), short(item.shapes)]
             for item in one.items if item.kind != "line"]
    lines = wiring.setdefault(tuple(map(_shorter, strokes(one.items))), len(wiring))
    return {"size": short([one.width, one.height]), "lines": lines, "items": items, "words": one.words[:300]}


def _joined(shapes: list[list]) -> list[list]:
    """The shapes with texts that stand below each other as one, a line each."""
    out = []
    for shape in shapes:
        last = out[-1] if out else [""]
        if shape[0] == last[0] == "t" and shape[1:3] == last[1:3] and shape[4] == last[4] and (
                abs(shape[3] - last[3] - LINE[shape[1]] * (last[5].count("\n") + 1)) < 0.01):
            out[-1] = [*last[:5], f"{last[5]}\n{shape[5]}"]
        else:
            out.append(shape)
    return out


def _boxed(shapes: list[list]) -> list[list]:
    """A box with a text in its middle as one shape: "b", style of the text, the box, the text."""
    if [shape[0] for shape in shapes] != ["r", "t"] or shapes[0][1] != "box" or shapes[1][4] != "middle":
        return shapes
    (x, y, width, height, radius), (style, text_x, text_y, _, text) = shapes[0][2:], shapes[1][1:]
    text_y += LINE[style] * text.count("\n") / 2
    centred = abs(x + width / 2 - text_x) < 0.06 and abs(y + height / 2 - text_y) < 0.06
    return [["b", style, x, y, width, height, radius, text]] if centred else shapes


def _shorter(path: str) -> str:
    """The same path in fewer characters: all from where the last line ended, and lines along one axis by one number."""
    out, x, y = [], math.nan, math.nan
    for command, text in re.findall("([MLQCZ])([^MLQCZ]*)", path):
        points = list(map(float, text.split()))
        steps = [value - (y if i % 2 else x) for i, value in enumerate(points)]
        if command == "L" and 0 in (steps[0], steps[1]):
            out.append(f"v{number(steps[1])}" if steps[0] == 0 else f"h{number(steps[0])}")
        elif command == "M" and steps != [0, 0]:
            out.append("M" + " ".join(map(number, points)))
        elif command != "M":
            out.append(command.lower() + " ".join(map(number, steps)))
        x, y = points[-2:] or (math.nan, math.nan)
    return "".join(out).replace(" -", "-")


def _photograph(height: int, width: int) -> str:
    """The book's photograph as a small JPEG in a data URI, or "" where the book's files are not at hand."""
    from PIL import Image, ImageOps

    try:
        image = Image.open(book_file("images/chelsea.jpg"))
    except FileNotFoundError:
        return ""
    scale = min(1, PHOTOGRAPH_SIDE / max(height, width))
    fitted = ImageOps.fit(image.convert("RGB"), (max(1, round(width * scale)), max(1, round(height * scale))))
    buffer = io.BytesIO()
    fitted.save(buffer, "JPEG", quality=78)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
