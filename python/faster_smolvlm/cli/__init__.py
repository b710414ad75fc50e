"""The command `faster-smolvlm`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from .._rust import VERSION
from . import bench, describe
from .terminal import message_of, report

INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 after an error, 130 after Ctrl-C; 2 comes from argparse."""
    try:
        options = _parser().parse_args(arguments)
        for stream in (sys.stdout, sys.stderr):  # names of files may not fit the terminal's encoding
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        # Each thread would print each of its retries; what is wrong in the end is one error.
        logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")  # what libraries say about odd pictures; errors are reported
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader went away; what Python would flush at exit has to go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # nothing catches it after this
        report(message_of(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="faster-smolvlm", description="Ask a SmolVLM model about pictures and clips.")
    parser.add_argument("--version", action="version", version=f"faster-smolvlm {VERSION}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    describe.add_parser(commands)
    bench.add_parser(commands)
    return parser
