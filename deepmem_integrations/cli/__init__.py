"""The command line, ``deepmem``."""

import json
import sys
from collections.abc import Sequence

from deepmem_integrations.errors import DeepMemoryError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``deepmem``, and exit with one of these codes.

    - 0: The command did what it was asked to do.
    - 1: The command failed. One line on the standard error says why. With ``--json``, an object with the key ``error`` is
      printed to the standard output as well.
    - 2: The arguments are wrong.
    - 3: The training failed or was cancelled.

    Args:
        arguments: The arguments of the command; by default the arguments of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        from deepmem_integrations.cli.app import app

        app(args=arguments, prog_name="deepmem")
    except DeepMemoryError as error:
        print(f"deepmem: {error}", file=sys.stderr)  # noqa: T201 - errors go to the standard error
        if "--json" in arguments:
            print(json.dumps({"error": str(error), "type": type(error).__name__}))  # noqa: T201 - the answer in JSON
        sys.exit(1)
