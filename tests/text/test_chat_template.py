"""Rendering of conversations against Transformers, and templates and conversations from strangers."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import pytest
from faster_smolvlm.text.chat_template import (
    VIDEO_CHAT_TEMPLATE,
    render,
    template_variables,
    tracks_generation,
)
from faster_smolvlm.text.plain_data import MAX_DEPTH, plain_data
from faster_smolvlm.text.template_sandbox import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE
from transformers.utils.chat_template_utils import _get_template_variables, render_jinja_template

pytestmark = pytest.mark.parity

TEXT = {"type": "text", "text": "What is\n this? "}
IMAGE = {"type": "image", "image": "x.png"}
VIDEO = {"type": "video", "path": "x.mp4"}


def _user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


ANSWER = {"role": "assistant", "content": [{"type": "text", "text": "A cat. "}]}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [_user(TEXT)],
    [_user(IMAGE, TEXT)],
    [_user(TEXT, IMAGE, TEXT, IMAGE)],
    [_user(VIDEO, TEXT, IMAGE)],
    [{"role": "system", "content": [TEXT]}, _user(IMAGE, TEXT), ANSWER],
    [{"role": "user", "content": "plain"}],
    [{"role": "uSER", "content": [{"type": "text", "text": "<image>{{ 7 * 7 }}{% raw %}"}, {"type": "audio"}]}],
]
GENERATION = (
    "{%- for m in messages %}{{ m.role }}: {%- generation -%}{{ m.content[0].text }}{%- endgeneration %}\n{% endfor %}"
)
FEATURES = """
{%- set ns = namespace(seen=0, name='x') %}
{% for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {% set ns.seen = ns.seen + 1 %}
[{{ loop.index }}] {{ message | tojson(indent=1, sort_keys=true) }} {{ dict(a=1) | tojson }}
    {% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{{ ns.seen }} {{ tools | tojson }} {{ documents }} {{ custom }} {{ bos_token }} {{ '<é>' | tojson }}
{{ undefined_name }} {{ 'a' ~ 1 ~ none }} {{ 2 ** 3 * 'ab' + '%s' % 7 }}
{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}
"""


def both(conversations: list[Any], template: str, **kwargs: Any) -> tuple[Any, Any]:
    tracked = kwargs.pop("track", False)
    ours = render(conversations, template, track_generation=tracked, **kwargs)
    reference = render_jinja_template(
        conversations, chat_template=template, return_assistant_tokens_mask=tracked, **kwargs
    )
    return ours, reference


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_video_template(conversation: list[dict[str, Any]], add_generation_prompt: bool) -> None:
    ours, _ = render([conversation], VIDEO_CHAT_TEMPLATE, add_generation_prompt=add_generation_prompt)
    expected, _ = render_jinja_template(
        [conversation], chat_template=DEFAULT_CHAT_TEMPLATE, add_generation_prompt=add_generation_prompt
    )
    assert ours == expected


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_language_of_templates(conversation: list[dict[str, Any]]) -> None:
    extra = {"tools": [{"name": "t", "x": np.float32(0.5)}], "documents": [{"title": "d"}], "custom": (1, None)}
    ours, expected = both([conversation, conversation], FEATURES, track=True, bos_token="<s>", **extra)
    assert ours == expected
    assert ours[1][0], "a generation block was tracked"


def test_generation_spans() -> None:
    conversation = [{"role": "user", "content": [TEXT]}, ANSWER]
    ours, expected = both([conversation], GENERATION, track=True)
    assert ours == expected
    assert [ours[0][0][slice(*span)] for span in ours[1][0]] == [TEXT["text"], "A cat. "]
    assert tracks_generation(GENERATION)
    assert not tracks_generation(VIDEO_CHAT_TEMPLATE)


@pytest.mark.parametrize("text", ["A cat. ", "A cat", " ", "x\n"])
@pytest.mark.parametrize("suffix", ["", " | trim"])
def test_continue_final_message(text: str, suffix: str) -> None:
    template = f"{{% for m in messages %}}{{{{ m.content[0].text{suffix} }}}}<end>\n{{% endfor %}}"
    conversation = [_user(TEXT), {"role": "assistant", "content": [{"type": "text", "text": text}]}]
    ours, expected = both(
        [conversation], template.replace("m.content[0].text", "(m.content[0].text)"), continue_final_message=True
    )
    assert ours == expected
    assert conversation[-1]["content"][0]["text"] == text, "the caller's message is not changed"


def test_continue_named_field() -> None:
    template = "{% for m in messages %}{{ m.reasoning_content }}|{{ m.content }}<end>{% endfor %}"
    conversation = [{"role": "assistant", "content": "late", "reasoning": "so far"}]
    ours, expected = both([conversation], template, continue_final_message="reasoning")
    assert ours == expected
    assert ours[0] == ["so far"]


@pytest.mark.parametrize(
    ("conversation", "template"),
    [
        ([], "{{ messages[0].content }}"),
        ([{"role": "user"}], "{{ messages[0].content }}"),
        ([_user(IMAGE)], "{{ messages[0].content }}"),
        ([_user(TEXT)], "nothing of the content"),
        ([{"role": "user", "content": "a"}], "{{ messages[0].other }}"),
    ],
)
def test_nothing_to_continue(conversation: list[dict[str, Any]], template: str) -> None:
    with pytest.raises(ValueError, match="continue_final_message"):
        render([conversation], template, continue_final_message=True)
    with pytest.raises(ValueError, match="continue_final_message"):
        render_jinja_template([conversation], chat_template=template, continue_final_message=True)


def test_template_variables() -> None:
    assert template_variables(FEATURES) == _get_template_variables(FEATURES)


def test_templates_see_plain_data_only() -> None:
    @dataclass
    class Point:
        x: int
        array: Any

    class Loud(str):
        def upper(self) -> str:
            raise AssertionError("a method of the caller's class was called")

    message = {"role": Loud("user"), "n": np.int64(3), "p": Point(1, np.zeros(2)), "o": object(), "t": (1, [2.5])}
    template = "{% set m = messages[0] %}{{ m.role.upper() }} {{ m.p }} {{ m.o }} {{ m.t }} {{ m.n }}"
    ours, expected = both([[message]], template)
    assert ours == expected
    assert ours[0] == ["USER {'x': 1, 'array': '<ndarray>'} <object> (1, [2.5]) 3"]


ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages[0].clear() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ dict.__class__.__base__ }}",
    "{{ namespace.__init__.__globals__.os.system('true') }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ ('{0.__cl' ~ 'ass__}').format_map({'0': 1}) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['json'] }}",
    "{{ (messages | attr('__class__')) }}",
    "{{ messages | map(attribute='__class__') | list | tojson }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f')|attr('mro') }}",
    "{{ lipsum(n=1000, min=10000, max=20000) }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'base' %}",
    "{{ raise_exception('stop') }}",
    "{% for i in range(10 ** 9) %}{% endfor %}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_sandbox(template: str) -> None:
    """Each reaches out of the sandbox: it raises, or finds nothing where jinja2 gives an undefined value."""
    conversation = [{"role": "user", "content": "x"}]
    try:
        ours, _ = render([conversation], template)
    except (jinja2.TemplateError, TypeError, LookupError, OverflowError):
        return
    assert "class" not in ours[0].lower()
    assert "root:" not in ours[0]
    assert conversation == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{", "{% if x %}", "{% generation %}", "{{ 1 +  }}", "{" * 5000, "(" * 50]
)
def test_bad_template(template: str) -> None:
    conversation = [{"role": "user", "content": "x"}]
    if template.startswith("("):
        template = "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}"
    try:
        render([conversation], template)
    except jinja2.TemplateError:
        return
    assert template == "{" * 5000, "only this one is no syntax"


# A list whose text has more than 2 ** 40 characters, in little memory.
DOUBLED = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10 ** 10 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ [0] * 10 ** 10 }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}xxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ 'a' + 'a' * 9000000 + 'b' * 9000000 }}",
        "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'a' | center(10 ** 8) }}",
        "{{ 'a' | indent(10 ** 8, first=true) }}",
        "{{ ('a\\n' * 10000) | indent(100000) }}",
        "{{ ('a' * 10000) | replace('a', 'b' * 10000) }}",
        "{{ ('a' * 10000).replace('a', 'b' * 10000) }}",
        "{{ ('b' * 10000).join('a' * 10000) }}",
        "{{ ('a' * 10000) | join('b' * 10000) }}",
        "{{ messages | map(attribute='role') | list | join('b' * 10 ** 8) }}",
        "{{ ('a' * 1000000 + ' ') | list | join('b' * 1000) }}",
        "{{ '%100000000s' | format('a') }}",
        "{{ '%*d' % (100000000, 1) }}",
        "{{ '%s' * 10000 % (('a' * 10000,) * 10000) }}",
        "{{ '{:100000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 100000000) }}",
        "{{ '{:9{}}'.format(1, '00000000') }}",
        "{{ ('{0}' * 10000).format('a' * 10000) }}",
        "{{ ('{x}' * 10000).format_map({'x': 'a' * 10000}) }}",
        "{{ ('\\t' * 10000).expandtabs(100000) }}",
        "{{ ('a' * 10000).translate({97: 'b' * 10000}) }}",
        "{{ ('a b ' * 10000) | wordwrap(1, wrapstring='b' * 10000) }}",
        "{{ 'a'.encode() * 10 ** 10 }}",
        "{{ ([1] * 10000) | tojson(indent=10000) }}",
        f"{DOUBLED}{{{{ ns.x }}}}",
        f"{DOUBLED}{{{{ ns.x ~ 1 }}}}",
        f"{DOUBLED}{{{{ ns.x | tojson }}}}",
        "{% set ns = namespace(x=[]) %}"
        "{% for i in range(1000) %}{% set ns.x = ns.x + ['a' * 9000000 ~ i] %}{% endfor %}",
        "{% set s = 'a' * 9000000 %}"
        "{% macro m() %}{% for i in range(90000) %}{{ s }}{% endfor %}{% endmacro %}{{ m() }}",
        "{% macro m() %}{% for i in range(90000) %}{% for j in range(90000) %}xxxxxxxx{% endfor %}{% endfor %}"
        "{% endmacro %}{{ m() }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    ],
)
def test_greedy_template(template: str) -> None:
    """A template cannot take the memory or the time of the process."""
    with pytest.raises(jinja2.exceptions.SecurityError):
        render([[{"role": "user", "content": "x"}]], template)


def test_what_templates_do_is_not_greedy() -> None:
    """Long conversations, and operations whose arguments look large, pass."""
    conversation = [{"role": "user", "content": "word " * 100} for _ in range(2000)]
    template = (
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s ~ m.role[:1] %}{{ m.role | upper }}: "
        "{{ m.content | trim | replace('word', 'words') | indent(4) }}\n{% endfor %}{{ ns.s | length }}"
        "{{ messages | map(attribute='role') | unique | join(', ') }}{{ messages | tojson(indent=2) | length }}"
        "{{ '{{{}}} {:>8} of 4111111111111111'.format(7, 'x') }}{{ '100% of 123456789' ~ '%5.1f|%s' % (1.5, 'x') }}"
    )
    (ours,), _ = render([conversation], template)
    written = len(json.dumps(conversation, indent=2))
    assert ours.endswith(f"2000user{written}{{7}}        x of 4111111111111111100% of 123456789  1.5|x")
    assert ours.count("USER: words words") == 2000


def test_the_guard_is_in_the_code_that_jinja2_writes() -> None:
    """It overrides methods that jinja2 does not document: a release that calls others would switch it off."""
    template = (
        "{{ a ~ b }}{{ a * b }}{{ a - b }}{{ a() }}{{ a | trim }}{% for i in a if i %}{% endfor %}{{ a[1:] }}{{ a[b] }}"
        "{{ a == b }}{{ a in b }}{{ {a: b} }}{{ a(*b) }}{% macro m() %}{% endmacro %}{% set c %}{{ a }}{% endset %}"
    )
    code = environment().compile(template, raw=True)
    assert "environment.join_text((" in code
    assert code.count("environment.charge(") == 4, "the template, a loop, its condition, a macro"
    assert code.count("environment.call_binop(context, '*'") == code.count("environment.call_binop(context, '-'") == 1
    assert "environment.call(context, " in code
    assert "environment.cut(" in code
    assert code.count("environment.weighed(") == 5, "a subscript, two sides of ==, what is looked for, a key"
    assert code.count("environment.searched(") == 1
    assert "*environment.spread(" in code
    assert "environment.finalize(context, " in code
    assert "concat = environment.concat" in code


def _nested(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value]
    return value


def test_deep_nesting() -> None:
    assert plain_data(_nested(MAX_DEPTH)) == _nested(MAX_DEPTH)
    for depth in (MAX_DEPTH + 2, 100_000):
        with pytest.raises(ValueError, match="nested deeper"):
            render([[{"role": "user", "content": _nested(depth)}]], "x")
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested deeper"):
        plain_data(endless)


@pytest.mark.parametrize("conversation", [["not a message"], [1], [None], [["role", "user"]]])
def test_no_messages(conversation: list[Any]) -> None:
    with pytest.raises(TypeError, match="Chat messages should be dicts"):
        render([conversation], "x")


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=3), prompt=st.booleans())
def test_arbitrary_text(texts: list[str], prompt: bool) -> None:
    conversation = [_user(*({"type": "text", "text": text} for text in texts), IMAGE)]
    ours, _ = render([conversation], VIDEO_CHAT_TEMPLATE, add_generation_prompt=prompt)
    expected, _ = render_jinja_template(
        [conversation], chat_template=DEFAULT_CHAT_TEMPLATE, add_generation_prompt=prompt
    )
    assert ours == expected


def test_threads() -> None:
    """Spans of one thread do not end up in another's."""
    conversations = [[{"role": str(i), "content": [{"type": "text", "text": "x" * i}]}] for i in range(8)]
    expected = [render([conversation], GENERATION, track_generation=True) for conversation in conversations]
    found: list[Any] = [None] * len(conversations)

    def work(index: int) -> None:
        for _ in range(20):
            found[index] = render([conversations[index]], GENERATION, track_generation=True)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(conversations))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
