"""The text of a chat template, before it is compiled: how large it may be, and what is added so that it pays its way.

jinja2 computes nothing here; each body that may run more than once gets a charge for what it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeGuard

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.lexer import Token

from .template_limits import BYTES, MAX_BITS, MAX_ODD_KEYS, STEP

MAX_SOURCE = 1 << 18
"""How many characters a template may have; those of known models have 30,000 at most."""

MAX_TOKENS = 1 << 15
"""How many words and signs a template may have."""

MAX_WORK = 8_000
"""How much work it may be to compile a template: about one for each name, constant, operator and tag."""

MAX_BRANCHING = 1 << 18
"""How many names times branches a template may have: jinja2 copies a table of all names for each branch."""

MAX_NESTING = 100
"""How deep the parts of a template may hold each other."""

# What running a part once costs beside what its operation charges. A lookup that fails makes an object.
_PART = 48
_COSTS: dict[type[nodes.Node], int] = {
    **dict.fromkeys((nodes.Getattr, nodes.Getitem), 800),
    **dict.fromkeys((nodes.NSRef, nodes.Macro, nodes.CallBlock), 1024),
    nodes.Name: 200,
}
# What compiling a unit of work costs: a template of very many parts has less left for what it does.
_COMPILED = 12_000
_FRAMES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
_BRANCHES = (*_FRAMES, nodes.If, nodes.CondExpr, nodes.With, nodes.FilterBlock, nodes.AssignBlock, nodes.Scope)


def check_source(source: str) -> None:
    """Raise jinja2.TemplateSyntaxError for a template that is too long to be one."""
    if len(source) > MAX_SOURCE:
        raise TemplateSyntaxError(f"it has {len(source)} characters; up to {MAX_SOURCE} are allowed", 1)


def check_tokens(tokens: Iterable[Token]) -> Iterator[Token]:
    """Raise jinja2.TemplateSyntaxError for too many of them, before all are read."""
    for count, token in enumerate(tokens):
        if count > MAX_TOKENS:
            raise TemplateSyntaxError("it has too many parts", token.lineno)
        yield token


def prepare(tree: nodes.Template) -> None:
    """Check the parts of a template, and add charges to its bodies. Raises jinja2.TemplateSyntaxError."""
    order: list[tuple[nodes.Node, int]] = []
    stack: list[tuple[nodes.Node, int]] = [(tree, -1)]
    depths: list[int] = []
    work = branches = 0
    names: set[str] = set()
    while stack:
        node, parent = stack.pop()
        _check(node)
        _charge_spread(node)
        at = len(order)
        depths.append(0 if parent < 0 else depths[parent] + 1)
        order.append((node, parent))
        work += 8 if isinstance(node, _FRAMES) else 1
        branches += isinstance(node, _BRANCHES)
        if isinstance(node, nodes.Name):
            names.add(node.name)
        if work > MAX_WORK or len(names) * branches > MAX_BRANCHING:
            raise TemplateSyntaxError("it has too many parts", node.lineno)
        if depths[at] > MAX_NESTING:
            raise TemplateSyntaxError(f"its parts are nested deeper than {MAX_NESTING} levels", node.lineno)
        stack += [(child, at) for child in node.iter_child_nodes()]
    tree.body.insert(0, nodes.ExprStmt(_charge(work * _COMPILED, 1), lineno=1))
    costs = [_cost(node) for node, _ in order]
    for at in range(len(order) - 1, 0, -1):  # children come after their parents
        node, parent = order[at]
        costs[parent] += costs[at]
        if isinstance(node, _FRAMES):
            _add_charge(node, STEP + costs[at])


def _check(node: nodes.Node) -> None:
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
        raise TemplateSyntaxError(f"it holds an integer of more than {MAX_BITS} bits", node.lineno)
    if isinstance(node, nodes.ScopedEvalContextModifier):
        raise TemplateSyntaxError("it switches autoescape, but a prompt is no HTML", node.lineno)
    if isinstance(node, nodes.Dict):
        odd = sum(not (is_scalar(pair.key) and isinstance(pair.key.value, str)) for pair in node.items)
        if odd > MAX_ODD_KEYS:
            raise TemplateSyntaxError(
                f"it holds a mapping of more than {MAX_ODD_KEYS} keys that are not written as text", node.lineno
            )
    if isinstance(node, nodes.Output):  # known texts are written as they are
        node.nodes = [
            nodes.TemplateData(child.value, lineno=child.lineno)
            if isinstance(child, nodes.Const) and isinstance(child.value, str)
            else child
            for child in node.nodes
        ]


def is_scalar(node: nodes.Node) -> TypeGuard[nodes.Const]:
    """Whether a part is a text, number, bool or none that stands in the template."""
    return isinstance(node, nodes.Const)


def _cost(node: nodes.Node) -> int:
    written = len(node.data) if isinstance(node, nodes.TemplateData) else 0
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        written = len(node.value)  # comparing with it
    return _COSTS.get(type(node), _PART) + written * BYTES // 4


def _add_charge(node: nodes.Node, cost: int) -> None:
    """Let each run of a body begin with a charge, and each test of the items of a loop."""
    assert isinstance(node, _FRAMES)
    node.body.insert(0, nodes.ExprStmt(_charge(cost, node.lineno), lineno=node.lineno))
    if isinstance(node, nodes.For) and node.test is not None:
        node.test = nodes.And(_charge(cost, node.lineno), node.test, lineno=node.lineno)


def _charge_spread(node: nodes.Node) -> None:
    """Let arguments that are given as a list or mapping be charged."""
    if isinstance(node, (nodes.Call, nodes.Filter, nodes.Test)):
        node.dyn_args = _spread(node.dyn_args)
        node.dyn_kwargs = _spread(node.dyn_kwargs)


def _spread(given: nodes.Expr | None) -> nodes.Expr | None:
    if given is None:
        return None
    function = nodes.EnvironmentAttribute("spread", lineno=given.lineno)
    return nodes.Call(function, [given], [], None, None, lineno=given.lineno)


def _charge(cost: int, line: int) -> nodes.Call:
    function = nodes.EnvironmentAttribute("charge", lineno=line)
    return nodes.Call(function, [nodes.Const(cost, lineno=line)], [], None, None, lineno=line)
