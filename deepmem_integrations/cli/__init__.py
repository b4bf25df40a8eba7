"""The entry point of ``deepmem``."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence

from deepmem_integrations._redaction import redact_all
from deepmem_integrations.errors import DeepMemoryError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``deepmem``.

    Exit codes: 0, it is done; 1, it cannot be done, as one line on the standard error says (with ``--json``, an object with
    ``error`` on the standard output as well); 2, the command is not written as it should be; 3, the training failed or was
    cancelled; 4, a model was trained and refused, and the model in use stays in use.

    Args:
        arguments: By default those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a pipe on Windows, for one, cannot hold every character of a document
            stream.reconfigure(errors="backslashreplace")
    try:
        from deepmem_integrations.cli.app import app

        app(args=arguments, prog_name="deepmem")
    except DeepMemoryError as error:
        told = " ".join([str(error), *getattr(error, "__notes__", ())])
        message = redact_all(told, [*arguments, os.environ.get("DEEPMEM_STORE", "")])
        print(f"deepmem: {message}", file=sys.stderr)  # noqa: T201 - the command line's own error
        if "--json" in arguments:
            with contextlib.suppress(OSError):  # of a standard output that cannot be written, which may be the error itself
                print(json.dumps({"error": message, "type": type(error).__name__}), flush=True)  # noqa: T201 - for programs
        sys.exit(1)
