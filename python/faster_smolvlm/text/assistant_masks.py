"""Which tokens of a prompt the assistant wrote: what training takes its loss from."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from .placeholders import Replacement
from .template_sandbox import Span


def assistant_masks(
    offsets: Sequence[Sequence[Span]], spans: Sequence[Sequence[Span]], replaced: Sequence[Sequence[Replacement]]
) -> list[list[int]]:
    """Return, for each text, 1 for each token that overlaps a span of the assistant, and 0 for the others.

    `offsets` are the characters of each token in the text with its placeholders expanded, `spans` those of the
    assistant in the text before that, `replaced` what `replace_placeholders` reported.
    """
    masks = []
    for row, generated, replacements in zip(offsets, spans, replaced, strict=True):
        ends = [item["span"][1] for item in replacements]
        gained = [0, *(item["new_span"][1] - item["span"][1] for item in replacements)]
        moved = [[char + gained[bisect.bisect_right(ends, char)] for char in span] for span in generated]
        masks.append([int(any(first < end and last > start for start, end in moved)) for first, last in row])
    return masks
