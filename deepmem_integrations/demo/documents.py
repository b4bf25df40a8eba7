"""The demo's corpus: the API documentation inside the installed ``deeplake`` package."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from deepmem_integrations.errors import MissingExtraError

MIN_CHARACTERS = 60
"""The length of the shortest docstring to take. Shorter ones ("The name of the branch") answer no question."""

_HIDDEN = re.compile(r"<!--.*?-->", re.DOTALL)
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class ApiDocument:
    """One docstring of the Deep Lake API.

    Attributes:
        id: The first symbol with the docstring, e.g. ``deeplake.Dataset.append``.
            An overload's id ends with its parameters: ``deeplake.Dataset.__getitem__(column: str)``.
        text: The docstring, without the comments that its doctest runner hides from readers.
        symbols: All symbols with the same docstring, ``id`` first.
    """

    id: str
    text: str
    symbols: tuple[str, ...]


def api_documents(root: Path | None = None) -> list[ApiDocument]:
    """Read the docstrings of at least `MIN_CHARACTERS` characters from the ``.pyi`` files of a package.

    Args:
        root: The folder of the package; by default the folder of the installed ``deeplake``, which is not imported.

    Returns:
        The documents, in the order of the files. Symbols with the same docstring share one document.

    Raises:
        MissingExtraError: ``deeplake`` is not installed.
    """
    if root is None:
        spec = find_spec("deeplake")
        if spec is None or spec.origin is None:
            raise MissingExtraError("deeplake", extra="demo")
        root = Path(spec.origin).parent

    symbols: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*.pyi")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        for symbol, docstring in _docstrings(ast.parse(path.read_text(encoding="utf-8")), module):
            text = _BLANK_LINES.sub("\n\n", _HIDDEN.sub("", docstring)).strip()
            if len(text) >= MIN_CHARACTERS:
                symbols.setdefault(text, []).append(symbol)
    return [ApiDocument(names[0], text, tuple(names)) for text, names in symbols.items()]


def _docstrings(module: ast.Module, name: str) -> Iterator[tuple[str, str]]:
    """Yield (symbol, docstring) for a module and for everything defined in it."""
    if docstring := ast.get_docstring(module):
        yield name, docstring
    yield from _members(module, name)


def _members(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[str, str]]:
    for node in parent.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        symbol = f"{prefix}.{node.name}"
        docstring = ast.get_docstring(node)
        if isinstance(node, ast.ClassDef):
            if docstring:
                yield symbol, docstring
            yield from _members(node, symbol)
        elif docstring:
            yield symbol + _overload_suffix(node), inspect.cleandoc(docstring)


def _overload_suffix(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the suffix of a symbol's id: the parameters of an overload, ``=`` for a setter, and nothing for others.

    Overloads are not numbered, because their numbers would change with the versions of the package.
    """
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    if "setter" in names:
        return "="
    if "overload" not in names:
        return ""
    arguments = [argument for argument in node.args.args if argument.arg != "self"]
    return "(" + ", ".join(ast.unparse(argument) for argument in arguments) + ")"
