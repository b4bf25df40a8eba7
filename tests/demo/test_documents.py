from deepmem_integrations.demo.documents import MIN_CHARACTERS, api_documents

PACKAGE = '''
"""The package's own docstring, long enough to be a document of its own in the corpus."""
import typing

class Dataset:
    """A dataset that can be written to, described in rather more than sixty characters."""
    def append(self, data: dict) -> None:
        """Append rows to the dataset.

        <!-- test-context
        secret = "hidden from readers"
        -->

        The same text stands in ReadOnlyDataset, so that both are one document.
        """
    @typing.overload
    def __getitem__(self, offset: int) -> Row:
        """Get a single row by its position in the dataset, counted from zero at the start."""
    @typing.overload
    def __getitem__(self, column: str) -> Column:
        """Get a whole column by its name; the column is read when it is used, not before."""
    @property
    def short(self) -> int:
        """Too short."""

class ReadOnlyDataset:
    def append(self, data: dict) -> None:
        """Append rows to the dataset.

        The same text stands in ReadOnlyDataset, so that both are one document.
        """
'''


def test_documents_are_docstrings_by_symbol(tmp_path):
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.pyi").write_text(PACKAGE)
    (folder / "types.pyi").write_text(
        "def Text() -> Type:\n    '''A text column, which may be indexed for exact or inverted search.'''\n"
    )
    documents = {document.id: document for document in api_documents(folder)}
    assert list(documents) == [
        "some_package",
        "some_package.Dataset",
        "some_package.Dataset.append",
        "some_package.Dataset.__getitem__(offset: int)",
        "some_package.Dataset.__getitem__(column: str)",
        "some_package.types.Text",
    ]
    append = documents["some_package.Dataset.append"]
    assert append.symbols == ("some_package.Dataset.append", "some_package.ReadOnlyDataset.append")
    assert "hidden" not in append.text
    assert append.text.endswith("so that both are one document.")


def test_the_installed_documentation_is_a_corpus():
    documents = api_documents()
    assert len(documents) >= 200
    assert len({document.id for document in documents}) == len(documents)
    assert len({document.text for document in documents}) == len(documents)
    assert min(len(document.text) for document in documents) >= MIN_CHARACTERS
