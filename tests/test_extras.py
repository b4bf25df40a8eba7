import pytest

from deepmem_integrations._extras import require
from deepmem_integrations.errors import MissingExtraError


def test_a_missing_extra_prints_its_install_line():
    with pytest.raises(MissingExtraError, match=r'pip install "deepmem-integrations\[ann\]"') as caught:
        require("no_such_package", extra="ann")
    assert isinstance(caught.value, ImportError)


def test_a_broken_package_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import another_missing_one")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_missing_one"):
        require("broken_package", extra="ann")
