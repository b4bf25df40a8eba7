"""Our docstrings head an example with "Example:", which Griffe takes for a remark; "Examples:" lets it see the doctest."""

import re
from typing import Any

import griffe

HEAD = re.compile(r"^(\s*)Example:$", re.MULTILINE)


class Examples(griffe.Extension):
    """Heads examples as Griffe knows them."""

    def on_object(self, *, obj: griffe.Object, **options: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = HEAD.sub(r"\1Examples:", obj.docstring.value)
