"""Which part of the package imports which: ``python tests/import_graph.py`` prints the counts, `tests/test_imports.py` checks.

A *room* is a subpackage or a module at the root of the package. Rooms stand in an order, and imports point down it, wherever in a
file they stand: at its top, inside a function, or under TYPE_CHECKING. Whoever imports a module of a subpackage imports the
subpackage's ``__init__`` as well, so those arrows count, too.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = "deepmem_integrations"
PACKAGE = Path(__file__).parent.parent / NAME

ORDER = (
    "errors",
    "_forks",
    "_extras",
    "_files",
    "_pickles",
    "_processes",
    "_immutable",
    "_locks",
    "_redaction",
    "_store",
    "_vectors",
    "_weak",
    "_kmeans",
    "_strings",
    "_language",
    "_sentences",
    "_unicode",
    "_ordered",
    "_texts",
    "_workers",
    "cluster",
    "labels",
    "feedback",
    "tracing",
    "adapter",
    "embedding",
    "deeplake",
    "corpora",
    "words",
    "generation",
    "audit",
    "models",
    "drift",
    "remote",
    "tenants",
    "serving",
    "ranking",
    "judging",
    "store_sample",
    "evaluation",
    "retriever_evaluation",
    "evaluation_log",
    "training",
    "retraining",
    "jobs",
    "report",
    "transforms",
    "memory",
    "opened",
    "langchain",
    "llama_index",
    "demo",
    "ui",
    "cli",
)
"""The rooms, lowest first."""

STRANGERS = {("langchain", "llama_index"), ("llama_index", "langchain")}
"""Rooms side by side, which must not know each other."""


def imports(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports from the package, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{NAME}."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            if node.module and node.module.partition(".")[0] == NAME:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str | None:
    """The module that holds a dotted name, relative to the package; None for the package's own ``__init__``."""
    parts = name.split(".")[1:]
    while parts:
        path = PACKAGE.joinpath(*parts)
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            return ".".join(parts)
        parts.pop()
    return None


def graph() -> dict[str, set[str]]:
    """Module → the modules that it imports. A package stands for its ``__init__``."""
    arrows: dict[str, set[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        if not module:
            continue  # the package's own __init__ imports nothing before a name is used
        found = arrows.setdefault(module, set())
        for name in imports(file):
            imported = module_of(name)
            if imported is None or imported == module:
                continue
            found.add(imported)
            if room(imported) != room(module):
                found.add(room(imported))
    return arrows


def room(module: str) -> str:
    """The room of a module."""
    return module.partition(".")[0]


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """Arrows that do not point down the order, as ``from → to``."""
    found = []
    for module, imported in arrows.items():
        for other in sorted(imported):
            one, two = room(module), room(other)
            if one != two and (ORDER.index(two) > ORDER.index(one) or (one, two) in STRANGERS):
                found.append(f"{module} → {other}")
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, directly or not: the strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in arrows.get(module, ()):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = [stack.pop()]
            while component[-1] != module:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for module in arrows:
        if module not in index:
            visit(module)
    return found


def main() -> int:
    arrows = graph()
    roots = sorted(path.stem for path in PACKAGE.glob("*.py"))
    between = {(room(module), room(other)) for module, found in arrows.items() for other in found if room(module) != room(other)}
    crossing = sum(room(module) != room(other) for module, found in arrows.items() for other in found)
    up, round_ = upward(arrows), circles(arrows)
    print(f"{len(arrows) + 1} modules, {len(roots)} of them at the root: {', '.join(roots)}")
    print(f"{len(between)} pairs of rooms, {crossing} arrows between modules of different rooms")
    print(f"{len(up)} arrows that point upward" + "".join(f"\n  {arrow}" for arrow in up))
    print(f"{len(round_)} circles" + "".join(f"\n  {' ↔ '.join(group)}" for group in round_))
    return 1 if up or round_ else 0


if __name__ == "__main__":
    sys.exit(main())
