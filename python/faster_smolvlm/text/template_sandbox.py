"""The Jinja environment of chat templates: what a template may see, call and take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

Span = tuple[int, int]
"""First character, and the one after the last."""

MAX_TEXT = 1 << 24
"""How many characters, or items of a list, a template may build."""

MAX_NUMBER = 1 << 20
"""The largest number that a template may pass to a method, as a width or a count."""

_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\d{6,}|\*)")


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the one environment; it holds no state of a rendering."""
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_DictBuilder(), namespace=_Namespace
    )
    return made


class _Generator(CodeGenerator):
    """Sends `a ~ b` through the environment, as jinja2 does with operators that it is asked to intercept."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        self.write("environment.join_text((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")


class Environment(ImmutableSandboxedEnvironment):
    """A sandbox that also refuses expressions which would take the memory of the process."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`, unless the result would be too large."""
        if _result_size(operator, left, right) > MAX_TEXT:
            raise jinja2.exceptions.SecurityError(f"the chat template builds something too large with {operator!r}")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method or function, unless a number given to it is too large."""
        if any(isinstance(value, int) and value > MAX_NUMBER for value in (*args, *kwargs.values())):
            raise jinja2.exceptions.SecurityError(f"a chat template may pass numbers up to {MAX_NUMBER}")
        return super().call(context, obj, *args, **kwargs)

    def join_text(self, items: tuple[Any, ...]) -> str:
        """Join as `~` does."""
        texts = [str(item) for item in items]
        if sum(map(len, texts)) > MAX_TEXT:
            raise jinja2.exceptions.SecurityError("the chat template builds a text that is too large")
        return "".join(texts)


def _result_size(operator: str, left: Any, right: Any) -> int:
    sized = [len(value) for value in (left, right) if isinstance(value, (str, list, tuple))]
    if operator == "+":
        return sum(sized)
    if operator == "*" and sized:
        return sized[0] * max([int(value) for value in (left, right) if isinstance(value, int)], default=1)
    if operator == "%" and isinstance(left, str):
        return MAX_TEXT + 1 if _WIDE_FORMAT.search(left) else 0
    numbers: list[int] = [value.bit_length() for value in (left, right) if isinstance(value, int)]
    if operator == "**" and len(numbers) == 2:
        return numbers[0] * min(abs(int(right)), MAX_TEXT + 1)
    return max(numbers, default=0)


_tracker: ContextVar[tuple[list[str], list[Span]] | None] = ContextVar("_tracker", default=None)


@contextmanager
def tracked_blocks(blocks: list[str]) -> Iterator[list[Span]]:
    """Collect where generation blocks stand, `blocks` being what the template has written so far."""
    spans: list[Span] = []
    token = _tracker.set((blocks, spans))
    try:
        yield spans
    finally:
        _tracker.reset(token)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks what the assistant said."""

    tags = {"generation"}  # noqa: RUF012 - the interface of jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note_span"), [], [], body).set_lineno(line)

    def _note_span(self, caller: Macro) -> str:
        text = str(caller())
        tracker = _tracker.get()
        if tracker is not None:
            blocks, spans = tracker
            start = sum(map(len, blocks))
            spans.append((start, start + len(text)))
        return text


class _DictBuilder:
    """`dict(…)` for templates, without the attributes of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """Return a dict with the given keys."""
        return dict.fromkeys(*args, **kwargs)


class _Namespace(jinja2.utils.Namespace):
    """`namespace(…)` for templates, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template cannot store the underscore-prefixed name {name!r}")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML, which a prompt is not
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)
