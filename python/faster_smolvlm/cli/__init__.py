"""The command `faster-smolvlm`."""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .._rust import VERSION
from . import bench as cli_bench

if TYPE_CHECKING:
    from ..vlm.answers import Result, Timings
    from ..vlm.smolvlm import SmolVLM

DEFAULT_MODEL = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"
DEFAULT_PROMPT = "Describe the image."
DEFAULT_CLIP_PROMPT = "Describe the video."
INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 after an error, 130 after Ctrl-C; 2 comes from argparse."""
    try:
        options = _parser().parse_args(arguments)
        for stream in (sys.stdout, sys.stderr):  # names of files may not fit the terminal's encoding
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        warnings.simplefilter("ignore")  # what libraries say about odd pictures; errors are reported
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away; what Python would flush at exit has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the last place before a traceback
        _report(_message(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="faster-smolvlm", description="Ask a SmolVLM model about pictures and clips.")
    parser.add_argument("--version", action="version", version=f"faster-smolvlm {VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    describe = commands.add_parser(
        "describe",
        help="answer one question about each picture or clip",
        description="Answer one question about each picture or clip. One that cannot be used is reported by name; the "
        "others are answered, and the exit status is 1.",
    )
    describe.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, an http(s) URL or a data URI")
    describe.add_argument(
        "-p", "--prompt", help=f"the question (default: {DEFAULT_PROMPT!r}, or {DEFAULT_CLIP_PROMPT!r} for a clip)"
    )
    describe.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="ID|DIR|demo",
        help='a hub id, a directory, or "demo", the small model in this package (default: %(default)s)',
    )
    describe.add_argument(
        "--max-new-tokens", type=_positive, default=128, metavar="N", help="longest answer (default: %(default)s)"
    )
    describe.add_argument("--json", action="store_true", help="print one JSON object a line")
    describe.add_argument("--timings", action="store_true", help="say how long each part took")
    describe.set_defaults(run=_describe)
    cli_bench.add_parser(commands, default_model=DEFAULT_MODEL, positive=_positive)
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return value


def _describe(options: argparse.Namespace) -> int:
    vlm = _load(options.model)
    answered = [_answer(vlm, picture, n, options) for n, picture in enumerate(_progress(options.pictures), 1)]
    return int(not all(answered))


def _answer(vlm: SmolVLM, picture: str, number: int, options: argparse.Namespace) -> bool:
    """Print the answer about one picture, or report what is wrong with it; whether there was an answer."""
    try:
        if options.json:
            result = vlm.generate(**_question(picture, options))
            _print_json(picture, result, options.timings)
        else:
            _stream(vlm, picture, number, options)
    except BrokenPipeError:
        raise
    except Exception as error:  # whatever is wrong with one picture, the others are answered
        message = _message(error)
        message = message if picture in message else f"{picture!r}: {message}"
        if options.json:
            print(json.dumps({"picture": picture, "error": message}), flush=True)
        _report(message)
        return False
    return True


def _question(source: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that ask about a picture, or about a clip, which its name or its data URI tells."""
    kind = source[5:] if source.startswith("data:") else mimetypes.guess_type(source.partition("?")[0])[0] or ""
    clip = kind.startswith("video/")
    prompt = options.prompt or (DEFAULT_CLIP_PROMPT if clip else DEFAULT_PROMPT)
    return {"prompt": prompt, "videos" if clip else "images": [source], "max_new_tokens": options.max_new_tokens}


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
    """Show a bar for many pictures, but not where answers are written to the same terminal."""
    if len(pictures) == 1 or not sys.stderr.isatty() or sys.stdout.isatty():
        return pictures
    from tqdm import tqdm

    bar: Iterable[str] = tqdm(pictures, unit="picture", file=sys.stderr)
    return bar


def _stream(vlm: SmolVLM, picture: str, number: int, options: argparse.Namespace) -> None:
    """Print the answer piece by piece; among several pictures, behind the name of its own."""
    with vlm.stream(**_question(picture, options)) as stream:
        several = len(options.pictures) > 1
        if several:
            count = f"[{number}/{len(options.pictures)}] " if sys.stdout.isatty() else ""
            print(f"{count}{_printable(picture)}: ", end="", flush=True)
        try:
            for piece in stream:
                print(_printable(piece), end="", flush=True)
        finally:
            print(flush=True)
        if options.timings:
            result = stream.result
            print(_describe_timings(result.timings, result.usage.prompt_tokens), file=sys.stderr, flush=True)


def _print_json(picture: str, result: Result, timings: bool) -> None:
    record: dict[str, Any] = {
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


def _message(error: BaseException) -> str:
    """Return what an error says on one line, for people."""
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return "this needs PyTorch: pip install 'faster-smolvlm[torch]'"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, (ValueError, OSError, NotImplementedError)) else f"{type(error).__name__}: {text}"


def _report(message: str) -> None:
    print(f"faster-smolvlm: {_printable(message)}", file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """Escape control characters, which a terminal would obey: names of files and answers come from others."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
