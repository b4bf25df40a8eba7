"""Feeds the doors of `tests.fuzz` with what reaches new code: ``python -m tests.fuzz_coverage [SECONDS]``, an hour by default.

It needs ``pip install atheris``, which follows the branches that each input takes. A door has a process and a corpus of its own,
so that a later run goes on from what the earlier ones found: ``--folder`` says where, ``build/fuzz`` by default. An input that
raises what is no `DeepMemoryError` ends its door, and is kept in that folder as ``crash-…``; all other doors go on.
"""

import argparse
import subprocess
import sys
import warnings
from pathlib import Path


def feed(name: str, folder: Path, seconds: int) -> None:
    """Feed one door, and end the process."""
    import atheris  # pytest, which looks for doctests here, does without

    with atheris.instrument_imports(include=["deepmem_integrations"], enable_loader_override=False):
        from tests.fuzz import DOORS, once
    warnings.simplefilter("ignore")
    values, check = DOORS[name]
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={folder}/",
        "-max_len=4096",
        "-len_control=0",
        "-timeout=60",
        "-rss_limit_mb=4096",
    ]
    atheris.Setup([sys.argv[0], str(folder), *options], once(values, check, [0, 0]).hypothesis.fuzz_one_input)
    atheris.Fuzz()


def main() -> int:
    """Feed every door for its share of the time, and return how many of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=int, nargs="?", default=3600)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--door", help="this one alone, in this process")
    arguments = parser.parse_args()
    if arguments.door:
        feed(arguments.door, arguments.folder, arguments.seconds)
    from tests.fuzz import DOORS

    failed = 0
    for name in DOORS:
        folder = arguments.folder / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        share = str(max(1, arguments.seconds // len(DOORS)))
        command = [sys.executable, "-m", "tests.fuzz_coverage", share, "--folder", str(folder), "--door", name]
        found = subprocess.run(command, capture_output=True, text=True)
        lines = found.stderr.strip().splitlines()
        print(f"{name}: {lines[-1] if lines and not found.returncode else found.stderr[-4000:]}", flush=True)  # noqa: T201
        failed += found.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
