"""Random small templates give the text that Transformers gives, or an error where it gives one."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest
from faster_smolvlm.text.chat_template import render
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

pytestmark = pytest.mark.parity

MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "What is <this>?\\n é "}, {"type": "image"}], "n": 3},
    {
        "role": "assistant",
        "content": "a-b c\\td",
        "n": -1.5,
        "tool_calls": [{"name": "f", "arguments": {"x": [1, None]}}],
    },
]
# Scalars have names here: jinja2 gives nothing instead of an error for a slice of a constant such as `0[1:]`.
CONSTANTS: dict[str, Any] = {
    **{"words": "a b", "layout": "%s|%5d", "empty": "", "tag": "<é>", "zero": 0, "one": 1, "less": -3, "half": 2.5},
    **{"yes": True, "nothing": None, "numbers": [1, 2, 3], "letters": ["b", "a", "b"], "pair": (1, "x")},
    **{"mapping": {"k": 1, "l": [2]}, "tools": [{"name": "t"}, {"name": "é"}]},
}
ATOMS = (
    *CONSTANTS,
    *(
        "messages",
        "m",
        "m.role",
        "m['content']",
        "m.content[0]",
        "m.n",
        "m.nope",
        "nope",
        "range(4)",
        "namespace(a=1).a",
    ),
    *("dict(a=1, b='x')", "dict([('k', 2)])", "loop.index0", "[m.n, 'user']", "{'k': m.n}"),
)
FILTERS = (
    *(
        "abs",
        "attr('role')",
        "batch(2) | list",
        "capitalize",
        "center(9)",
        "count",
        "d('z')",
        "default('z', true)",
        "dictsort",
    ),
    *(
        "e",
        "escape",
        "filesizeformat",
        "first",
        "float",
        "forceescape",
        "format('q', 3)",
        "groupby('type') | list",
        "indent(2)",
    ),
    *(
        "int",
        "items | list",
        "join(', ')",
        "join('-', attribute='role')",
        "last",
        "length",
        "list",
        "lower",
        "map('upper') | list",
    ),
    *(
        "map(attribute='role') | list",
        "max",
        "min",
        "pprint",
        "reject('none') | list",
        "rejectattr('n') | list",
        "round(1)",
    ),
    *(
        "replace('a', 'bb')",
        "reverse | list",
        "safe",
        "select | list",
        "selectattr('role', 'equalto', 'user') | list",
        "title",
    ),
    *(
        "slice(2) | list",
        "sort",
        "sort(attribute='n')",
        "string",
        "striptags",
        "sum",
        "sum(start=[])",
        "tojson",
        "trim('a ')",
    ),
    *(
        "tojson(indent=2)",
        "tojson(sort_keys=true)",
        "truncate(5)",
        "unique | list",
        "upper",
        "urlencode",
        "urlize",
        "wordcount",
    ),
    *("wordwrap(3)", "xmlattr", "unique(attribute='role') | list", "min(attribute='n')", "reverse | first"),
)
METHODS = (
    *(
        "upper()",
        "strip()",
        "split()",
        "split('a', 1)",
        "rsplit(' ', 1)",
        "replace('a', '')",
        "startswith('a')",
        "join(['x', 'y'])",
    ),
    *(
        "items() | list",
        "keys() | list",
        "get('role')",
        "get('nope', 4)",
        "index(2)",
        "count('b')",
        "format(1, 2)",
        "copy()",
    ),
    *(
        "splitlines()",
        "title()",
        "lstrip('a')",
        "find('b')",
        "partition(' ')",
        "zfill(5)",
        "isdigit()",
        "removeprefix('a')",
    ),
    *("join(tools | map(attribute='name'))", "bit_length()", "is_integer()", "append(1)"),
)
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and", "or")
TESTS = (
    *(
        "string",
        "mapping",
        "iterable",
        "none",
        "defined",
        "number",
        "odd",
        "even",
        "divisibleby(2)",
        "sequence",
        "in [1, 'user']",
    ),
    *("eq('user')", "lower", "upper", "sameas none", "boolean", "integer", "callable", "escaped", "filter"),
)
SLICES = ("[0]", "[-1]", "[1:]", "[:2]", "[::-1]", "['role']", "['nope']", "[m.n]", "[0:3:2]")


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} | {})".format, inner, st.sampled_from(FILTERS)),
        st.builds("({}).{}".format, inner, st.sampled_from(METHODS)),
        st.builds("({} {} {})".format, inner, st.sampled_from(OPERATORS), inner),
        st.builds("({} is {})".format, inner, st.sampled_from(TESTS)),
        st.builds("({}){}".format, inner, st.sampled_from(SLICES)),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{'k': {}, ({}) | string: 1}}".format, inner, inner),
        st.builds("({} < {} <= {})".format, inner, inner, inner),
    )


EXPRESSIONS = st.recursive(st.sampled_from(ATOMS), _grown, max_leaves=4)
STATEMENTS = (
    "{{{{ {} }}}}",
    "{{% if {} %}}yes{{% elif m.n %}}n{{% else %}}no{{% endif %}}",
    "{{% for x in {} %}}{{{{ loop.index }}}}{{{{ x }}}};{{% else %}}none{{% endfor %}}",
    "{{% for x in {} if x %}}{{{{ loop.length }}}}{{{{ x }}}}{{% if loop.last %}}.{{% endif %}}{{% endfor %}}",
    "{{% set v = {} %}}{{{{ v }}}}{{{{ v is defined }}}}",
    "{{% set v %}}[{{{{ {} }}}}]{{% endset %}}{{{{ v | length }}}}",
    "{{% macro f(a, b=2) %}}<{{{{ a }}}}{{{{ b }}}}>{{% endmacro %}}{{{{ f({}) }}}}{{{{ f(1, b=3) | upper }}}}",
    "{{% filter upper %}}a{{{{ {} }}}}{{% endfilter %}}",
    "{{% generation %}}{{{{ {} }}}}{{% endgeneration %}}",
    "{{% set ns = namespace(v=0) %}}{{% for i in [1, 2] %}}{{% set ns.v = {} %}}{{% endfor %}}{{{{ ns.v }}}}",
)
TEMPLATES = st.lists(st.builds(str.format, st.sampled_from(STATEMENTS), EXPRESSIONS), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(TEMPLATES)
def test_random_templates(parts: list[str]) -> None:
    template = "{% for m in messages %}" + "\n".join(parts) + "{% endfor %}"
    expected: Any
    try:
        expected = render_jinja_template(
            [MESSAGES], chat_template=template, return_assistant_tokens_mask=True, **CONSTANTS
        )
    except Exception:
        with pytest.raises(jinja2.TemplateError):
            render([MESSAGES], template, track_generation=True, **CONSTANTS)
        return
    ours = render([MESSAGES], template, track_generation=True, **CONSTANTS)
    if " at 0x" not in expected[0][0]:
        assert ours == expected
