import subprocess
import sys

import pytest

import deepmem_integrations
from tests import import_graph

HEAVY = [
    "torch",
    "deeplake",
    "openai",
    "langchain_core",
    "llama_index",
    "pydantic",
    "typer",
    "scipy",
    "sklearn",
    "Stemmer",
    "sqlalchemy",
]


def modules_after(statement):
    script = f"import sys\n{statement}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_the_import_loads_nothing_heavy():
    assert modules_after("import deepmem_integrations") == []
    assert (
        modules_after(
            "from deepmem_integrations import QueryAdapter, Relevance, evaluate, train_adapter, DeepMemory, FeedbackLog"
        )
        == []
    )


@pytest.mark.slow
def test_each_part_loads_only_its_own():
    assert "torch" not in modules_after("import deepmem_integrations.langchain")
    assert not {"deeplake", "sqlalchemy"} & set(modules_after("import deepmem_integrations.langchain"))
    assert not {"torch", "deeplake", "openai"} & set(modules_after("import deepmem_integrations.llama_index"))
    assert modules_after("import deepmem_integrations.cli") == []
    assert modules_after("import deepmem_integrations.generation") == []
    assert modules_after("import deepmem_integrations.words") == []
    assert modules_after("import deepmem_integrations.feedback") == []


def test_all_public_names_are_there():
    for name in deepmem_integrations.__all__:
        assert getattr(deepmem_integrations, name) is not None
    assert dir(deepmem_integrations) == sorted(deepmem_integrations.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        deepmem_integrations.nope  # noqa: B018 - the access is the test
    from deepmem_integrations import langchain, llama_index

    assert langchain.__all__ == [
        "DeepLake",
        "DeepMemoryEmbeddings",
        "DeepMemoryQueryTransform",
        "DeepMemoryRetriever",
        "RelevanceJudge",
        "SyntheticQueryGenerator",
    ]
    assert llama_index.__all__ == sorted(llama_index.__all__)
    assert all(getattr(llama_index, name) is not None for name in llama_index.__all__)


def test_arrows_point_one_way():
    arrows = import_graph.graph()
    assert {import_graph.room(module) for module in arrows} == set(import_graph.ORDER), "each room has its place in the order"
    assert import_graph.upward(arrows) == []
    assert import_graph.circles(arrows) == []


def test_the_core_imports_no_framework_package():
    framework = ("langchain", "llama_index", "cli", "demo", "ui")
    guilty = {
        module: sorted(other for other in imported if import_graph.room(other) in framework)
        for module, imported in import_graph.graph().items()
        if import_graph.room(module) not in framework
    }
    assert {module: found for module, found in guilty.items() if found} == {}


def test_the_import_graph_sees_circles_and_arrows_that_point_upward():
    arrows = {"memory": {"serving", "langchain"}, "serving": {"memory"}, "langchain": {"langchain.retrievers", "memory"}}
    assert import_graph.upward(arrows) == ["memory → langchain", "serving → memory"]
    assert import_graph.circles(arrows) == [["langchain", "memory", "serving"]]
    inner = set(import_graph.imports(import_graph.PACKAGE / "memory" / "deep_memory.py"))
    assert "deepmem_integrations.corpora.langchain.read_vectorstore" in inner, "imports inside functions are seen"
