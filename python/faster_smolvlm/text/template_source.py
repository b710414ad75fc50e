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

# What running a part once costs, beside what its operation charges.
_PART = 24
_COSTS: dict[type[nodes.Node], int] = {
    **dict.fromkeys((nodes.Getattr, nodes.Getitem), 192),
    **dict.fromkeys((nodes.For, nodes.AssignBlock, nodes.FilterBlock), 512),
    **dict.fromkeys((nodes.NSRef, nodes.Macro, nodes.CallBlock), 1024),
    **dict.fromkeys((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends), 16_384),  # they fail slowly
}
# A branch with less in it is charged with what is around it, whether it is taken or not.
_SMALL_BRANCH = 1024
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
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    work = branches = 0
    names: set[str] = set()
    while stack:
        node, depth = stack.pop()
        _check(node)
        _charge_spread(node)
        work += 8 if isinstance(node, _FRAMES) else 1
        branches += isinstance(node, _BRANCHES)
        if isinstance(node, nodes.Name):
            names.add(node.name)
        if work > MAX_WORK or len(names) * branches > MAX_BRANCHING:
            raise TemplateSyntaxError("it has too many parts", node.lineno)
        if depth > MAX_NESTING:
            raise TemplateSyntaxError(f"its parts are nested deeper than {MAX_NESTING} levels", node.lineno)
        stack += [(child, depth + 1) for child in node.iter_child_nodes()]
    cost = _add_charges(tree)
    tree.body.insert(0, _statement(cost + work * _COMPILED, 1))


def _add_charges(node: nodes.Node) -> int:
    """Let each body that may run more than once, or not at all, begin with a charge; return the cost of the rest."""
    costs = {
        name: sum(_add_charges(part) for part in (value if isinstance(value, list) else [value]) if _is_node(part))
        for name, value in node.iter_fields()
    }
    rest = _cost(node) + sum(costs.values())
    if not isinstance(node, (*_FRAMES, nodes.If)):
        return rest
    bodies = [name for name in ("body", "else_") if costs.get(name, 0) >= _SMALL_BRANCH]
    if isinstance(node, _FRAMES) and "body" not in bodies:
        bodies.append("body")
    rest -= sum(costs.get(name, 0) for name in bodies)
    # The defaults of a macro are computed by each call, the targets of a loop are set in each turn.
    again = sum(costs.get(name, 0) for name in ("args", "defaults", "target"))
    for name in bodies:
        getattr(node, name).insert(0, _statement(STEP + costs.get(name, 0) + again, node.lineno))
    if isinstance(node, nodes.For) and node.test is not None:
        node.test = nodes.And(_charge(STEP + costs["test"] + again, node.lineno), node.test, lineno=node.lineno)
    return rest


def _is_node(part: object) -> bool:
    return isinstance(part, nodes.Node)


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


def _statement(cost: int, line: int) -> nodes.ExprStmt:
    return nodes.ExprStmt(_charge(cost, line), lineno=line)


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
