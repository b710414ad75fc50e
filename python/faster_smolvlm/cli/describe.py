"""`faster-smolvlm describe`: one question about each picture or clip."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..quoting import quoted
from .terminal import DEFAULT_MODEL, message_of, positive, printable, report, text

if TYPE_CHECKING:
    from ..media.policy import MediaPolicy
    from ..vlm.answers import Result, Timings
    from ..vlm.smolvlm import SmolVLM

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_PROMPT = "Describe the image."
DEFAULT_CLIP_PROMPT = "Describe the video."


def add_parser(commands: Commands) -> None:
    """Add the command to `faster-smolvlm`."""
    parser = commands.add_parser(
        "describe",
        help="answer one question about each picture or clip",
        description="Answer one question about each picture or clip. One that cannot be used is reported by name; the "
        "others are answered, and the exit status is 1.",
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, an http(s) URL or a data URI")
    parser.add_argument(
        "-p",
        "--prompt",
        type=text,
        help=f"the question (default: {DEFAULT_PROMPT!r}, or {DEFAULT_CLIP_PROMPT!r} for a clip)",
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="ID|DIR|demo",
        help='a hub id, a directory, or "demo", the small model in this package (default: %(default)s)',
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=128, metavar="N", help="longest answer (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--timings", action="store_true", help="say how long each part took")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer about each picture; return 1 if one could not be used, else 0."""
    vlm = _load(options.model)
    answered = [_answer(vlm, picture, n, options) for n, picture in enumerate(_progress(options.pictures), 1)]
    return int(not all(answered))


def _answer(vlm: SmolVLM, picture: str, number: int, options: argparse.Namespace) -> bool:
    """Print the answer about one picture, or report what is wrong with it; whether there was an answer."""
    try:
        if options.json:
            prompt, asked = _question(picture, vlm.policy, options)
            result = vlm.generate(prompt, **asked)
            _print_json(picture, result, options.timings)
        else:
            _stream(vlm, picture, number, options)
    except BrokenPipeError:
        raise
    except Exception as error:  # whatever is wrong with one picture, the others are answered
        message = message_of(error)
        label = quoted(picture)
        message = message if label in message or (len(picture) < 200 and picture in message) else f"{label}: {message}"
        if options.json:
            print(json.dumps({"picture": picture, "error": message}), flush=True)
        report(message)
        return False
    return True


def _question(source: str, policy: MediaPolicy, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the prompt and the arguments for a picture or a clip; its content says which it is.

    Raises a `MediaError` if the source cannot be read. A URL is fetched here, once.
    """
    from ..media.sniff import is_clip
    from ..media.source import read_source

    found = read_source(source, policy, "picture or clip")
    clip = is_clip(found, source)
    prompt = options.prompt or (DEFAULT_CLIP_PROMPT if clip else DEFAULT_PROMPT)
    given = source if found.data is None else found.data
    return prompt, {"videos" if clip else "images": [given], "max_new_tokens": options.max_new_tokens}


def _load(name: str) -> SmolVLM:
    """Load the model, saying so on a terminal while it takes."""
    if sys.stderr.isatty():
        print(f"loading {name} …", end="", file=sys.stderr, flush=True)
    try:
        from ..vlm.smolvlm import SmolVLM

        return SmolVLM.from_pretrained(name)
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _progress(pictures: list[str]) -> Iterable[str]:
    """Show a bar for many pictures, unless answers are written to the same terminal."""
    if len(pictures) == 1 or not sys.stderr.isatty() or sys.stdout.isatty():
        return pictures
    from tqdm import tqdm

    bar: Iterable[str] = tqdm(pictures, unit="picture", file=sys.stderr)
    return bar


def _stream(vlm: SmolVLM, picture: str, number: int, options: argparse.Namespace) -> None:
    """Print the answer piece by piece; among several pictures, behind the name of its own."""
    prompt, asked = _question(picture, vlm.policy, options)
    with vlm.stream(prompt, **asked) as stream:
        several = len(options.pictures) > 1
        if several:
            count = f"[{number}/{len(options.pictures)}] " if sys.stdout.isatty() else ""
            name = picture if len(picture) <= 200 else quoted(picture)
            print(f"{count}{printable(name)}: ", end="", flush=True)
        try:
            for piece in stream:
                print(printable(piece), end="", flush=True)
        finally:
            print(flush=True)
        if options.timings:
            result = stream.result
            print(_describe_timings(result.timings, result.usage.prompt_tokens), file=sys.stderr, flush=True)


def _print_json(picture: str, result: Result, timings: bool) -> None:
    record: dict[str, object] = {
        "picture": picture,
        "text": result.text,
        "finish_reason": result.finish_reason,
        **asdict(result.usage),
    }
    if timings:
        record["timings"] = {**asdict(result.timings), "per_token": result.timings.per_token}
    print(json.dumps(record), flush=True)


def _describe_timings(timings: Timings, prompt_tokens: int) -> str:
    def milliseconds(seconds: float) -> str:
        return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"

    parts = {
        "loading": timings.load,
        "reading the picture": timings.image_decode,
        "preprocessing": timings.preprocessing,
        "vision": timings.vision,
        f"first token (after {prompt_tokens} of the prompt)": timings.prefill,
        f"{max(timings.tokens - 1, 0)} more tokens": timings.decode,
        "each": timings.per_token,
    }
    width = max(map(len, parts))
    return "\n".join(f"  {name:<{width}}  {milliseconds(seconds):>9}" for name, seconds in parts.items())
