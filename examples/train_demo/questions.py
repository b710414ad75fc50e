"""Questions about scenes and clips, each with the one answer that counts as right."""

from __future__ import annotations

import random
from typing import NamedTuple

from .clips import Clip
from .scenes import COLOURS, SHAPES, Scene, Shape, relation

NUMBERS = ("Zero", "One", "Two", "Three")
DESCRIBE = ("Describe the image.", "Can you describe this image?", "What is in this image?")
WATCH = ("Describe the video.", "What happens in the video?", "Can you describe this video?")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


class Question(NamedTuple):
    """A kind (what accuracy is counted by), the text of a question and the text of its answer."""

    kind: str
    text: str
    answer: str


def article(noun: object) -> str:
    return ("an " if str(noun)[0] in "aeiou" else "a ") + str(noun)


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def describe(shapes: tuple[Shape, ...], tall: bool = False) -> str:
    """Return the sentence that describes a scene: what is where for two shapes; three from left to right, or down."""
    if len(shapes) == 1:
        return sentence(article(shapes[0]))
    first, second, *rest = sorted(shapes, key=lambda s: s.y if tall else s.x)
    if rest:
        return sentence(f"{article(first)}, {article(second)} and {article(rest[0])}")
    first, second = sorted(shapes, key=lambda s: s.y if relation(first, second) in ("above", "below") else s.x)
    return sentence(f"{article(first)} {relation(first, second)} {article(second)}")


def where(shape: Shape, scene: Scene) -> str:
    """Return the half (wide and tall pictures) or the quarter of the picture that a shape is in."""
    rows, columns = scene.grid
    across = "left" if shape.x < scene.size[0] / 2 else "right"
    down = "top" if shape.y < scene.size[1] / 2 else "bottom"
    if rows == 1:
        return f"On the {across}."
    return f"At the {down}." if columns == 1 else f"At the {down} {across}."


def _existence(rng: random.Random, shapes: tuple[Shape, ...]) -> Question:
    """Ask whether there is a shape, a colour, or a shape of a colour; half the answers are yes."""
    names, colours = {s.name for s in shapes}, {s.colour for s in shapes}
    yes, style, one = rng.random() < 0.5, rng.random(), rng.choice(shapes)
    if style < 0.25:
        name = one.name if yes else rng.choice([s for s in SHAPES if s not in names])
        asked = article(name)
    elif style < 0.5:
        asked = "anything " + (one.colour if yes else rng.choice([c for c in COLOURS if c not in colours]))
    elif yes:
        asked = article(one)
    elif rng.random() < 0.5:  # the right shape of another colour, often one that is there
        others = [s.colour for s in shapes if s != one] or [c for c in COLOURS if c != one.colour]
        asked = article(f"{rng.choice(others)} {one.name}")
    else:
        asked = article(f"{one.colour} {rng.choice([s for s in SHAPES if s != one.name])}")
    return Question("yes/no", f"Is there {asked}?", "Yes." if yes else "No.")


def _named(rng: random.Random, shape: Shape) -> str:
    """Name a shape of the picture, half the time with its colour."""
    return str(shape) if rng.random() < 0.5 else shape.name


def ask_scene(rng: random.Random, scene: Scene) -> list[Question]:
    """Return one question of every kind that the scene allows, in random order."""
    shapes = scene.shapes
    pick = [rng.choice(shapes) for _ in range(3)]
    spelling = rng.choice(("colour", "colour", "color"))
    questions = [
        Question("describe", rng.choice(DESCRIBE), describe(shapes, scene.grid[1] == 1)),
        Question("count", "How many shapes are there?", NUMBERS[len(shapes)] + "."),
        Question("colour", f"What {spelling} is the {pick[0].name}?", sentence(pick[0].colour)),
        Question("shape", f"What shape is {pick[1].colour}?", sentence(article(pick[1].name))),
        Question("size", f"Is the {_named(rng, pick[2])} big or small?", "Big." if pick[2].big else "Small."),
        _existence(rng, shapes),
    ]
    if len(shapes) == 1:
        questions.append(Question("where", f"Where is the {_named(rng, shapes[0])}?", where(shapes[0], scene)))
    if len(shapes) == 2:
        a, b = rng.sample(shapes, 2)
        side = relation(a, b)
        questions.append(Question("relation", f"What is {side} the {_named(rng, b)}?", sentence(article(a))))
        if rng.random() < 0.25:
            side = OPPOSITE[side]
            questions.append(Question("nothing", f"What is {side} the {_named(rng, b)}?", "Nothing."))
    rng.shuffle(questions)
    return questions


def ask_clip(rng: random.Random, clip: Clip) -> list[Question]:
    """Return the questions of a clip: what happens, and what can be asked about the shape it happens to."""
    first, last = clip.shapes[0][0], clip.shapes[-1][-1]
    if clip.event == "move":
        story = f"{article(first)} moving {clip.direction[0].lower()}{clip.direction[1:-1]}"
        asked = [
            Question("motion", f"Which way does the {first.name} move?", clip.direction),
            Question("clip colour", f"What colour is the {first.name}?", sentence(first.colour)),
        ]
    elif clip.event == "change":
        story = f"{article(first)} turning {last.colour}"
        asked = [Question("change", f"Which colour does the {first.name} turn?", sentence(last.colour))]
    else:
        story = f"{article(last)} appears"
        asked = [Question("appear", "What appears?", sentence(article(last)))]
    asked.append(Question("clip describe", rng.choice(WATCH), sentence(story)))
    rng.shuffle(asked)
    return asked
