"""The Jinja environment of chat templates: what a template may see and call, and that all it does is charged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context

from .template_filters import guarded_filters, guarded_tests
from .template_globals import GLOBALS, DictBuilder, spread, to_json
from .template_limits import (
    BYTES,
    CALL,
    STEP,
    built,
    charge,
    check_bits,
    measure,
    metered,
    refuse,
    reserve,
    searched,
    weighed,
)
from .template_methods import ATTRIBUTES, charge_method, charge_operator
from .template_source import check_source, check_tokens, is_scalar, prepare

Span = tuple[int, int]
"""First character, and the one after the last."""


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the one environment; it holds no state of a rendering."""
    extensions = [_GenerationBlock, jinja2.ext.loopcontrols]
    made = Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_finalize, optimized=False)
    made.filters = guarded_filters({**made.filters, "tojson": to_json})
    made.tests = guarded_tests(made.tests)  # type: ignore[assignment, arg-type]  # jinja2 gives no signatures
    made.globals = dict(GLOBALS)
    made.undefined = _undefined  # type: ignore[assignment]  # it is only called
    return made


class _Generator(CodeGenerator):
    """Writes code that charges what it does, where jinja2 has no hook of its own.

    These methods are private to jinja2: a test fails if a later release does not call them.
    """

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        self.write("environment.join_text((")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        if len(node.ops) == 1 and _with_constants(node.expr, node.ops[0]):
            super().visit_Compare(node, frame)
            return
        self.write("(")
        self._wrap("weighed", node.expr, frame)
        for operand in node.ops:
            name = "searched" if operand.op in ("in", "notin") else "weighed"
            function = nodes.EnvironmentAttribute(name, lineno=operand.lineno)
            charged = nodes.Call(function, [operand.expr], [], None, None, lineno=operand.lineno)
            self.visit(nodes.Operand(operand.op, charged, lineno=operand.lineno), frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        slicing = isinstance(node.arg, nodes.Slice)
        self.write("environment.cut(" if slicing else "environment.getitem(")
        self.visit(node.node, frame)
        self.write(", ")
        if isinstance(node.arg, nodes.Slice):
            self.write("slice(")
            for part in (node.arg.start, node.arg.stop, node.arg.step):
                self.visit(part or nodes.Const(None), frame)
                self.write(", ")
            self.write(")")
        else:
            self._wrap("weighed", node.arg, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802 - the interface of jinja2
        self.write("{")
        for pair in node.items:
            self._wrap("weighed", pair.key, frame)
            self.write(": ")
            self.visit(pair.value, frame)
            self.write(", ")
        self.write("}")

    def visit_Call(  # noqa: N802 - the interface of jinja2
        self, node: nodes.Call, frame: Frame, forward_caller: bool = False
    ) -> None:
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.visit(node.node, frame)  # one of ours
        self.write("(")
        self.visit(node.args[0], frame)
        self.write(")")

    def _wrap(self, name: str, node: nodes.Expr, frame: Frame) -> None:
        if is_scalar(node):
            self.visit(node, frame)
            return
        self.write(f"environment.{name}(")
        self.visit(node, frame)
        self.write(")")


def _with_constants(left: nodes.Expr, operand: nodes.Operand) -> bool:
    """Whether a value is compared with constants of the template only: it is not looked into then."""
    right = operand.expr
    if operand.op in ("in", "notin"):
        return isinstance(right, (nodes.List, nodes.Tuple)) and all(map(is_scalar, right.items))
    return is_scalar(left) or is_scalar(right)


class Environment(ImmutableSandboxedEnvironment):
    """A sandbox that also refuses what would take the memory or the time of the process: see `template_limits`."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})
    charge = staticmethod(charge)
    weighed = staticmethod(weighed)
    searched = staticmethod(searched)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        check_source(source)
        tree = super()._parse(source, name, filename)
        prepare(tree)
        return tree

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Compute `left operator right`, unless the result would be too large."""
        charge_operator(operator, left, right)
        result: object = super().call_binop(context, operator, left, right)
        return built(result)

    def is_safe_attribute(self, obj: object, attr: str, value: object) -> bool:
        """Whether a template may see an attribute: those in `ATTRIBUTES`, and what namespaces hold."""
        known = ATTRIBUTES.get(type(obj))
        if known is not None:
            return attr in known
        return isinstance(obj, (Namespace, DictBuilder)) and not attr.startswith("_")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: object) -> object:
        """Call a method or function, unless what it takes or returns is too large."""
        charge(CALL)
        kind = type(obj)
        method = getattr(obj, "__wrapped__", obj) if kind is FunctionType else obj  # jinja2 wraps `format`
        if isinstance(method, (BuiltinMethodType, MethodType)):
            owner, name = method.__self__, method.__name__
            if name == "join" and args and isinstance(args[0], Iterator):
                args = (list(spread(args[0])), *args[1:])
            if isinstance(owner, LoopContext):
                weighed(args)  # `changed` compares them
            elif not isinstance(owner, _OWNERS):
                named = [value for key, value in kwargs.items() if key not in _INTERNAL]
                charge_method(owner, name, (*args, *named) if named else args)
        elif not isinstance(obj, _CALLABLE) and id(obj) not in _FUNCTIONS:
            refuse(f"calls an object of the type {kind.__name__[:40]}")
        result: object = context.call(obj, *args, **kwargs)
        if type(result) is int:
            check_bits(result.bit_length())
        return built(result)

    def cut(self, value: Any, span: slice) -> object:
        """Compute `value[span]`."""
        result: object = value[span]
        return built(result)

    @staticmethod
    def spread(value: object) -> object:
        """Charge the arguments that are given as a list or mapping."""
        return value if isinstance(value, Undefined) else spread(value)

    def join_text(self, items: tuple[object, ...]) -> str:
        """Join as `~` does."""
        charge(STEP)
        for item in items:
            weighed(item)
        return self.concat(map(str, items))

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join what a block wrote, or the texts of `~`."""
        parts = list(parts)
        reserve(sum(map(len, parts)) * BYTES)
        return built("".join(parts))


@pass_context  # or jinja2 would call it while it compiles
def _finalize(context: Context, value: object) -> object:
    """Charge what an expression writes; jinja2 makes it a text afterwards."""
    if isinstance(value, str):
        charge(len(value) + STEP // 4)
    else:
        charge(measure(value) + STEP // 2)
    return value


def _undefined(*args: Any, **kwargs: Any) -> Undefined:
    """Charge what is not there: looking for it in vain, and the object that says so."""
    charge(2 * STEP)
    return Undefined(*args, **kwargs)


class Written:
    """How many characters a rendering has written so far, and the spans of its generation blocks."""

    def __init__(self) -> None:
        self.length = 0
        self.spans: list[Span] = []


_written: ContextVar[Written | None] = ContextVar("_written", default=None)


@contextmanager
def tracked() -> Iterator[Written]:
    """Collect the spans of generation blocks; the caller counts what the template writes. The block has a budget."""
    written = Written()
    token = _written.set(written)
    try:
        with metered():
            yield written
    finally:
        _written.reset(token)


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %} … {% endgeneration %}`: marks what the assistant wrote."""

    tags = {"generation"}  # noqa: RUF012 - the interface of jinja2

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        return check_tokens(stream)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note_span"), [], [], body).set_lineno(line)

    def _note_span(self, caller: Macro) -> str:
        text = str(caller())
        written = _written.get()
        if written is not None:
            written.spans.append((written.length, written.length + len(text)))
        return text


# What a template may call. A method of a value has a rule of its own, see `template_methods`.
_CALLABLE = (Macro, BlockReference, LoopContext, Joiner, Undefined)
_OWNERS = (Cycler, DictBuilder, _GenerationBlock, BlockReference)
_FUNCTIONS = frozenset(map(id, GLOBALS.values()))
_INTERNAL = ("_loop_vars", "_block_vars", "caller")
