"""One kind of error for what a chat template does wrong: jinja2's, bounded in length, with the line of the template."""

from __future__ import annotations

import jinja2
from jinja2.exceptions import SecurityError, TemplateRuntimeError, TemplateSyntaxError, UndefinedError

_LENGTH = 500
# Those that a template can name or cause; every other class of jinja2 is shown as the one that it stands for.
_KINDS = (SecurityError, UndefinedError, TemplateRuntimeError)


def template_error(error: Exception, line: int | None = None) -> jinja2.TemplateError:
    """Return the error to raise for one that a template caused; outside of its handler, it keeps all that was built."""
    if isinstance(error, TemplateSyntaxError):
        return TemplateSyntaxError(f"in the chat template: {_cut(str(error.message))}", error.lineno)
    place = "chat template" if line is None else f"line {line} of the chat template"
    if isinstance(error, jinja2.TemplateError):
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), jinja2.TemplateError)
        return kind(f"{_cut(str(error.message))} ({place})")
    if isinstance(error, (RecursionError, MemoryError)):
        return SecurityError(f"the chat template is nested too deeply, or calls itself too often ({place})")
    return TemplateRuntimeError(f"{type(error).__name__} in {place}: {_cut(str(error))}")


def _cut(text: str) -> str:
    return text if len(text) <= _LENGTH else text[:_LENGTH] + "…"
