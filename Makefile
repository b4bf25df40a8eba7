# The targets that a contributor needs; CONTRIBUTING.md says more. Every target works in .venv, which `make install` makes.
.PHONY: install check test test-slow docs site package imports

install:
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e ".[dev]"

check:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python tests/import_graph.py

test:
	.venv/bin/pytest

test-slow:
	.venv/bin/pytest -m slow -n 0

docs:
	.venv/bin/pytest tests/test_docs.py tests/test_migration.py tests/test_start.py -m "slow or not slow"

site:
	.venv/bin/pip install -q -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

package:
	.ci/run package

imports:
	.venv/bin/python tests/import_graph.py
