"""The Jinja environment of chat templates: what a template may see and call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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

from .template_limits import (
    CALL_STEPS,
    call_size,
    check_numbers,
    check_size,
    count_step,
    extent,
    guarded_filter,
    metered,
    operator_size,
    shallow,
)

Span = tuple[int, int]
"""First character, and the one after the last."""


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the one environment; it holds no state of a rendering."""
    extensions = [_GenerationBlock, jinja2.ext.loopcontrols]
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_finalize)
    made.filters["tojson"] = _to_json
    made.filters = {name: guarded_filter(name, function) for name, function in made.filters.items()}
    del made.globals["lipsum"]  # it writes random text of any length
    made.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_DictBuilder(), namespace=_Namespace
    )
    return made


class _Generator(CodeGenerator):
    """Sends `a ~ b` and each turn of a loop through the environment, as jinja2 does with operators.

    These methods are private to jinja2: a test fails if a later release does not call them.
    """

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        self.write("environment.join_text((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        written = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        count = nodes.Call(nodes.EnvironmentAttribute("count_step"), [nodes.Const(written)], [], None, None)
        node.body.insert(0, nodes.ExprStmt(count, lineno=node.lineno))
        super().visit_For(node, frame)


class Environment(ImmutableSandboxedEnvironment):
    """A sandbox that also refuses what would take the memory or the time of the process: see `template_limits`."""

    code_generator_class = _Generator
    count_step = staticmethod(count_step)
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Compute `left operator right`, unless the result would be too large."""
        count_step(operator_size(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: object) -> object:
        """Call a method or function, unless what it takes or returns is too large."""
        if obj is count_step:  # what `visit_For` writes
            return count_step(*args)
        given = (*args, *kwargs.values())
        check_numbers(given)
        method = getattr(obj, "__wrapped__", obj)  # jinja2 wraps `format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, (str, bytes)):
            check_size(call_size(method.__name__, owner, given))
        result = super().call(context, obj, *args, **kwargs)
        count_step(shallow(result), steps=CALL_STEPS)
        return result

    def join_text(self, items: tuple[object, ...]) -> str:
        """Join as `~` does."""
        count_step(sum(extent(item).size for item in items))
        return "".join(map(str, items))


def _finalize(value: object) -> object:
    """Count what an expression writes; jinja2 makes it a text afterwards."""
    count_step(len(value) if isinstance(value, str) else extent(value).size)
    return value


_tracker: ContextVar[tuple[list[str], list[Span]] | None] = ContextVar("_tracker", default=None)


@contextmanager
def tracked_blocks(blocks: list[str]) -> Iterator[list[Span]]:
    """Collect the spans of generation blocks; `blocks` is what the template has written so far."""
    spans: list[Span] = []
    token = _tracker.set((blocks, spans))
    try:
        with metered():
            yield spans
    finally:
        _tracker.reset(token)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks what the assistant wrote."""

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

    def __call__(self, *args: Any, **kwargs: object) -> dict[object, object]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Iterable[object], value: object = None) -> dict[object, object]:
        """Return a dict with the given keys."""
        return dict.fromkeys(keys, value)


class _Namespace(jinja2.utils.Namespace):
    """`namespace(…)` for templates, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: object) -> None:
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __repr__(self) -> str:
        return "<Namespace>"  # jinja2's shows what it holds, which may be much

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template cannot store the underscore-prefixed name {name!r}")


def _to_json(
    value: object,
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
