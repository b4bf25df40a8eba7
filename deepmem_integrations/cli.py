"""The entry point of ``deepmem``."""

import sys

from deepmem_integrations.errors import DeepMemoryError


def main() -> None:
    """Run ``deepmem``; what the user can mend is told in one line, with exit code 1."""
    try:
        from deepmem_integrations.commands import app

        app()
    except DeepMemoryError as error:
        print(f"deepmem: {error}", file=sys.stderr)  # noqa: T201 - the command line's own error
        sys.exit(1)
