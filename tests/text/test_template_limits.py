"""Chat templates of strangers: none takes more time or memory than it may, and each error has a type and an end."""

from __future__ import annotations

import subprocess
import sys
import time

import jinja2
import pytest
from faster_smolvlm.text import template_limits
from faster_smolvlm.text.chat_template import render, template_variables
from faster_smolvlm.text.template_filters import FILTERS, TESTS
from faster_smolvlm.text.template_globals import GLOBALS
from faster_smolvlm.text.template_methods import ATTRIBUTES
from faster_smolvlm.text.template_sandbox import environment
from faster_smolvlm.text.template_source import MAX_SOURCE
from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_NAMESPACE, DEFAULT_TESTS
from jinja2.exceptions import SecurityError, TemplateRuntimeError, TemplateSyntaxError

CONVERSATION = [{"role": "user", "content": "x"}]
SECONDS = 2.5  # of CPU: two, and a machine that does other work
ERROR_LENGTH = 600
STEP = 2**61 - 1  # multiples of it have one hash

TEXT = "{% set v = 'ab ' * 400000 %}"
WIDE = "{% set v = '語\n' * 300000 %}"
LISTS = "{% set v = [[[1], ['x']]] * 20000 %}"
NUMBERS = "{% set v = range(100000) | list %}"
SAME_HASH = f"{{% set v = range(0, {9000 * STEP}, {STEP}) | list %}}"
MAPPING = "{% set v = {'a': range(50000) | list, 'b': 'x' * 100000} %}"
TUPLES = (
    "{% set n = namespace(v=(1,)) %}{% for i in range(14) %}{% set n.v = (n.v, n.v) %}{% endfor %}{% set v = n.v %}"
)
ENDLESS = TUPLES.replace("14", "40")
DEEP = "{% set n = namespace(v=(1,)) %}{% for i in range(90000) %}{% set n.v = (n.v,) %}{% endfor %}{% set v = n.v %}"
AGAIN = "{%% for i in range(100000) %%}{%% for j in range(100000) %%}%s{%% endfor %%}{%% endfor %%}"


def refused(template: str) -> jinja2.TemplateError:
    """Render a template that is to be refused, and return the error; its time and its length are checked."""
    started = time.thread_time()
    with pytest.raises(jinja2.TemplateError) as caught:
        render([CONVERSATION], template)
    assert time.thread_time() - started < SECONDS
    assert len(str(caught.value)) < ERROR_LENGTH
    return caught.value


# Every entry of jinja2's tables, and every method of the types that a template can hold.

NO_METHODS = {
    str: ("encode", "isidentifier", "maketrans", "translate"),
    list: ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    dict: ("clear", "fromkeys", "pop", "popitem", "setdefault", "update"),
    tuple: (),
    range: (),
    int: ("from_bytes", "to_bytes"),
    float: ("from_number", "fromhex"),
}


def test_every_entry_of_jinja2_has_a_rule() -> None:
    """A release with another filter, test or global is refused until somebody says what it costs."""
    assert set(DEFAULT_FILTERS) | {"tojson"} == set(FILTERS) == set(environment().filters)
    assert set(DEFAULT_TESTS) == set(TESTS) == set(environment().tests)
    ours = {"raise_exception", "strftime_now"}
    assert set(environment().globals) == set(GLOBALS) == set(DEFAULT_NAMESPACE) - {"lipsum"} | ours


@pytest.mark.parametrize("kind", NO_METHODS)
def test_every_method_has_a_rule_or_is_refused(kind: type) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")}
    assert public - ATTRIBUTES[kind] <= set(NO_METHODS[kind]), "a method that nobody has looked at is refused"
    for name in public - ATTRIBUTES[kind]:
        value = {str: "'a'", list: "[1]", dict: "{}", int: "(1)", float: "(1.5)"}[kind]
        assert isinstance(refused(f"{{{{ {value}.{name}() }}}}"), SecurityError)


def test_an_unknown_filter_test_or_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (DEFAULT_FILTERS, DEFAULT_TESTS, DEFAULT_NAMESPACE):
        monkeypatch.setitem(table, "new_one", lambda value: "x" * 10**9)
    environment.cache_clear()
    try:
        for template in (
            "{{ 'a' | new_one }}",
            "{{ 'a' is new_one }}",
            "{{ new_one('a') }}",
            "{{ ['a'] | map('new_one') | list }}",
        ):
            refused(template)
    finally:
        environment.cache_clear()


FILTER_ARGUMENTS = {
    **{"attr": "('real')", "batch": "(1)", "center": "(2000000)", "format": "(v, v)", "groupby": "(0)"},
    **{
        "indent": "(1000, true, true)",
        "int": "(0, 16)",
        "join": "('x' * 1000)",
        "map": "('upper')",
        "reject": "('none')",
    },
    **{"rejectattr": "('real', 'none')", "replace": "('a', 'b' * 50)", "round": "(300, 'ceil')", "select": "('none')"},
    **{"selectattr": "(0, 'none')", "slice": "(100000)", "sum": "(start=[])", "tojson": "(indent=50)"},
    **{"trim": "('b ' * 1000)", "truncate": "(1000000)", "wordwrap": "(1)"},
}
METHOD_ARGUMENTS = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), "2000000"),
    **dict.fromkeys(("rfind", "rindex", "rpartition", "rsplit"), "'c' ~ 'a' * 4000"),
    **dict.fromkeys(("count", "find", "index", "split", "partition"), "'a' * 20000 ~ 'c'"),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), "'bc ' * 100000 ~ 'a'"),
    **dict.fromkeys(("startswith", "endswith", "removeprefix", "removesuffix", "join", "format"), "v"),
    **{"expandtabs": "1000", "format_map": "{}", "replace": "'a', 'bb'"},
}
OPERATIONS = (
    *("v == w", "v < w", "v in [w]", "w in v", "v + v", "v * 2", "v % 7", "v ~ v", "v[1:]", "v[::-1]", "v | string"),
    *("{v: 1}", "{}[v]", "'%s' % (v,)", "'{!r}'.format(v)", "[1].index(v)", "[v].count(w)", "dict(v)", "{}.get(v)"),
    *("dict.fromkeys(v)", "cycler(*v)", "namespace(v)", "loop.changed(v)", "v == w == v", "v - v", "v.copy()"),
    *("v.keys() - v.keys()", "range(100000) | list", "loop | list", "strftime_now('%c' * 400)"),
)
SAME = "{% set w = v + v[:0] if v is sequence and v is not mapping else v %}"  # an equal value that is another


def _entries() -> list[str]:
    def again(value: str, expression: str) -> str:
        return value + SAME + AGAIN % f"{{% set q = {expression} %}}"

    filters = {name: f"v | {name}{FILTER_ARGUMENTS.get(name, '')} | list" for name in FILTERS}
    return [
        *(again(value, filters[name]) for name in FILTERS for value in (TEXT, LISTS)),
        *(again(TEXT, f"v.{name}({METHOD_ARGUMENTS.get(name, '')})") for name in ATTRIBUTES[str]),
        *(again(value, f"[v] | select('{name}', v) | list") for name in TESTS for value in (TEXT, TUPLES)),
        *(again(value, operation) for operation in OPERATIONS for value in (WIDE, LISTS, TUPLES)),
        *(again(MAPPING, operation) for operation in ("v == w", "v in [w]", "v.copy()", "v.keys() - v.keys()")),
    ]


def test_every_operation_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each filter, method, test and operator, over and over on a large value, within a small part of the budget."""
    monkeypatch.setattr(template_limits, "MAX_COST", template_limits.MAX_COST >> 7)
    slow = {}
    for template in _entries():
        started = time.thread_time()
        with pytest.raises(jinja2.TemplateError):
            render([CONVERSATION], template)
        taken = time.thread_time() - started
        if taken > 0.4:
            slow[template] = taken
    assert not slow


# Whole attacks.


ON_ENDLESS = (
    *("v == n.v + ()", "v in [v + ()]", "[v, v + ()] | sort", "[v, v] | max", "v is eq(v + ())", "[v].index(v + ())"),
    *("[v].count(v)", "{v: 1}", "v | pprint", "raise_exception(v)", "{}[v].x", "([{}] | map(attribute=v) | first).x"),
    *("[1] | map(v) | list", "'%r' % (v,)"),
)
ON_DEEP = ("{v: 1}", "v == (v,)", "{}.get(v)", "[v] | unique | list", "v in {}", "v | tojson", "v")
ON_NOTHING = (
    *("7 ** 5000000 // 3", "2 ** 4000 * 2 ** 4000", "5 | round(-10 ** 9)", "1.5 | round(10 ** 9, 'ceil')"),
    *("'%1500000000d' is even", "'%1500000000d' is odd", "'%1500000000d' is divisibleby 1", "'%1500000000d' % 1"),
    *("'%1500000000d' | format(1)", "'%5.1500000000f' % 1.5", "'%.*f' % (1500000000, 1.5)"),
    *("'%(a(b)c)1500000000d' % {'a(b)c': 1}", "[1] | batch(10 ** 9, 1) | list", "[1] | slice(10 ** 9) | list"),
    *("('a' * 8000000) | batch(1) | list", "strftime_now('%c' * 8000000)", "('x' * 8000000) | filesizeformat"),
    *("('é' * 100000).encode('punycode')", "([1] * 100000) | tojson(separators=('x' * 100000, 'y'))"),
    *("('a b' * 20000) | wordwrap(1, wrapstring='x' * 20000)", "('<!---->' * 1000000) | striptags"),
    *("([[1]] * 100000) | sum(start=[])", f"range(0, {100000 * STEP}, {STEP}) | unique | list | length"),
    *(f"dict.fromkeys(range(0, {100000 * STEP}, {STEP}))", f"{{{', '.join(f'{i * STEP}: 1' for i in range(2000))}}}"),
)
WHOLE = (
    "{% set a = [] %}{% set b = [] %}{{ a.append(b) }}{{ b.append(a) }}{{ a == b }}",
    NUMBERS
    + "{% set n = namespace(v=v) %}{% for i in v %}{% set n.v = n.v | map('string') %}{% endfor %}{{ n.v | list }}",
    "{% set s = 'a' * 10000000 %}" + AGAIN % "{% set t = s[1:] %}",
    "{% set s = [0] * 1000000 %}" + AGAIN % "{% set t = s[::-1] %}",
    AGAIN % "{% for x in range(100000) if x is none %}{% endfor %}",
    AGAIN % ("{% set a = 1 %}" * 2000),
    "{% macro m() %}" + "{% set a = 1 %}" * 2000 + "{% endmacro %}" + AGAIN % "{% set z = m() %}",
    "{% set v = [0] * 1000000 %}" + AGAIN % "{% for a in v %}{% set q = 5 in loop %}{% break %}{% endfor %}",
    "{% set v = [0] * 1000000 %}" + AGAIN % "{% for a in v %}{% set q = cycler(*loop) %}{% break %}{% endfor %}",
    SAME_HASH + "{{ v | unique(attribute='real') | list | length }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% block b %}{{ self.b() }}{% endblock %}",
    "{% for x in [1, 2, 3] recursive %}{{ loop([1, 2, 3]) }}{% endfor %}",
    "{% macro m(" + ", ".join(f"a{i}=1" for i in range(1500)) + ") %}{% endmacro %}" + AGAIN % "{% set q = m() %}",
    AGAIN % ("{% include [] ignore missing %}" * 100),
    "{% autoescape true %}{{ '<' * 1000000 }}{% endautoescape %}",
)


@pytest.mark.parametrize(
    "template",
    [
        *WHOLE,
        *(f"{ENDLESS}{{{{ {expression} }}}}" for expression in ON_ENDLESS),
        *(f"{DEEP}{{{{ {expression} }}}}" for expression in ON_DEEP),
        *(f"{{{{ {expression} }}}}" for expression in ON_NOTHING),
    ],
    ids=lambda template: template[-60:],
)
def test_attacks(template: str) -> None:
    refused(template)


@pytest.mark.parametrize(
    "source",
    [
        "{{x}}" * 300_000,
        "{{x}}" * 9000,
        "{% set a = 1 %}" * 17_000,
        "{% if a %}" + "{% elif b %}" * 100_000 + "{% endif %}",
        "".join(f"{{{{ a{i} }}}}" for i in range(2000)) + "{% if x %}{% endif %}" * 1500,
        "{{ " + "9" * 5_000_000 + " }}",
        "{{ " + "9" * 200_000 + " }}",
        "{{ 0x" + "f" * 200_000 + " }}",
        "{{ 1" + " + 1" * 3000 + " }}",
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{{ " + "not " * 20_000 + "1 }}",
        "{% if a %}" * 2000 + "{% endif %}" * 2000,
        "{% for a in b %}" * 25 + "{% endfor %}" * 25,
        "{% raw %}" + "{{" * 5_000_000 + "{% endraw %}",
        "{% " + "x" * 200_000 + " %}",
    ],
    ids=lambda source: f"{source[:25]}…{len(source)}",
)
def test_sources(source: str) -> None:
    """What is too long, too deep or too much to compile is refused before that, also when its names are read."""
    refused(source)
    with pytest.raises(jinja2.TemplateError):
        template_variables(source)


CHILD = """
import resource, sys
from faster_smolvlm.text.chat_template import render
import jinja2
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
try:
    render([[{"role": "user", "content": "x"}]], sys.stdin.read())
except jinja2.TemplateError:
    pass
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    "template",
    [
        "{{ ['\\U000e0001' * 6000000, '😀'] | string | length }}",
        "{% set n = namespace(l=[]) %}{% for i in range(9) %}{% set n.l = n.l + ['😀' ~ 'a' * 15000000] %}{% endfor %}",
        "{{ ('a' * 8000000) | batch(1) | list | length }}",
        "{{ ('語\n' * 3000000).splitlines() | length }}",
    ],
)
def test_memory(template: str) -> None:
    """The largest values that fit the budget stay below half a GB."""
    done = subprocess.run([sys.executable, "-c", CHILD], input=template, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 512


# Errors.


@pytest.mark.parametrize(
    ("template", "kind", "words"),
    [
        ("a\n\n{{ 1 + 'a' }}", TemplateRuntimeError, "TypeError in line 3 of the chat template: unsupported operand"),
        ("\n{{ range(10 ** 30) }}", TemplateRuntimeError, "OverflowError in line 2"),
        ("{% macro m() %}\n{{ m() }}{% endmacro %}{{ m() }}", SecurityError, "line 2"),
        ("{{ ('x' * 4000) | filesizeformat }}", TemplateRuntimeError, "ValueError in line 1"),
        ("\n{{ messages.nope.x }}", jinja2.UndefinedError, "line 2"),
        ("{{ raise_exception('roles must alternate') }}", jinja2.TemplateError, "^roles must alternate"),
        ("{{ raise_exception('y' * 1000000) }}", jinja2.TemplateError, "^yyy"),
        ("{% for a in b %}" * 25 + "{% endfor %}" * 25, TemplateRuntimeError, "SyntaxError in chat template"),
        ("\n{% nope %}", TemplateSyntaxError, "nope"),
        ("{% include 'x' %}", TemplateRuntimeError, "no loader"),
        ("{{ [1].append(2) }}", SecurityError, "'append' of 'list'"),
        ("{{ " + "x" * 200_000 + ".y }}", jinja2.UndefinedError, "is undefined|xxx"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_errors(template: str, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        render([CONVERSATION], template)
    assert len(str(caught.value)) < ERROR_LENGTH
    assert caught.value.__context__ is None, "it would keep all that the template built"


# What has to work.


def test_large_arguments() -> None:
    """Long documents and tools of the caller are no attack."""
    documents = [{"title": f"t{i}", "text": "words of a line\n" * 30_000} for i in range(10)]  # 4.8 MB
    tools = [{"type": "function", "function": {"name": f"f{i}", "description": "é\n" * 2000}} for i in range(200)]
    template = (
        "{% for d in documents %}{{ d.title | upper }}: {{ d.text | trim }}{% if 'line' in d.text %}!{% endif %}"
        "{% endfor %}{{ tools | tojson | length }} {{ documents | tojson | length }} "
        "{{ ', '.join(tools | map(attribute='type')) }}{% for t in tools | sort(attribute='function.name') "
        "if t.function.description != '' %}{{ t.function.name }}{% endfor %}"
    )
    (text,), _ = render([CONVERSATION], template, tools=tools, documents=documents)
    assert text.count("line") == 300_000
    assert text.endswith("f99")


def test_long_conversations() -> None:
    """What a branch holds is charged if it is taken: a large template has a long conversation to write."""
    unused = "{% if m.nope %}" + "{{ m.role | upper }}{% for t in tools %}{{ t }}{% endfor %}" * 100 + "{% endif %}"
    template = "{% for m in messages %}" + unused + "{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    (text,), _ = render([[{"role": "user", "content": "words " * 80}] * 4000], template)
    assert text.count("user: words") == 4000


def test_long_text_in_a_template() -> None:
    end = "{{ messages[0].role }}"
    (text,), _ = render([CONVERSATION], "x" * (MAX_SOURCE - len(end)) + end)
    assert text.endswith("xxuser")
