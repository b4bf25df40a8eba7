"""The table in docs/stores.md of what works on which store, whose rows the store matrices find out with real stores.

The slow tests of tests/corpora check each row, and write the rows anew with
``DEEPMEM_STORE_TABLE=write pytest -m slow -n 0 tests/corpora -k the_table``.
"""

import os
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "stores.md"
COLUMNS = ("search", "filter", "threshold", "MMR", "async", "reading", "words", "ids", "model")
YES, NO = "yes", "no"


def row_of(store, works):
    """Write one row.

    Args:
        store: The name of the store, as the table has it.
        works: Column → whether it works, or the text of the cell.
    """
    cells = [{True: YES, False: NO}.get(works[column], works[column]) for column in COLUMNS]
    return "| " + " | ".join([f"`{store}`", *cells]) + " |"


def rows(framework):
    """Return the rows of a framework's table: the name of the store → the row."""
    _, _, after = PAGE.read_text(encoding="utf-8").partition(f"<!-- {framework} -->\n")
    lines = after.partition("<!-- end -->")[0].strip().splitlines()
    return {line.split("`")[1]: line for line in lines[2:]}


def check(framework, store, works):
    """Compare a row with the page; or write the row into the page, if the environment says so."""
    row = row_of(store, works)
    if os.environ.get("DEEPMEM_STORE_TABLE") == "write":
        _write(framework, rows(framework) | {store: row})
    assert rows(framework).get(store) == row, "docs/stores.md differs from what the store does: see tests/store_table.py"


def _write(framework, found):
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(f"<!-- {framework} -->\n")
    end = text.index("<!-- end -->", start)
    head = "| " + " | ".join(["store", *COLUMNS]) + " |\n" + "| --- " * (len(COLUMNS) + 1) + "|\n"
    body = "\n".join(found.values())
    PAGE.write_text(f"{text[:start]}<!-- {framework} -->\n{head}{body}\n{text[end:]}", encoding="utf-8")
