"""Adapters that LlamaIndex's own ``EmbeddingAdapterFinetuneEngine`` trained, as ours."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmem_integrations._extras import require
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import Fingerprint, QueryAdapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import AdapterFileError, StorageError

_FILE = "pytorch_model.bin"


def import_linear_adapter(source: Any, embed_model: Any = None) -> QueryAdapter:
    """Take over an adapter that ``EmbeddingAdapterFinetuneEngine`` trained, to serve it here or compare it with ours.

    Its ``LinearLayer`` without a bias, which is its default, ranks as the result does: W x and x + x (Wᵀ − 1) are the same
    vector, and a length makes no difference to cosine similarity.

    Args:
        source: The ``LinearLayer``, the ``AdapterEmbeddingModel`` that ``engine.get_finetuned_model()`` gives, the folder that
            the engine wrote (``model_output_path``), or the ``pytorch_model.bin`` in it. A file is read without running
            anything that lies in it (``torch.load(weights_only=True)``).
        embed_model: The embedding model that it was trained for, so that others are refused: whatever `Embedder` takes. By
            default that of an ``AdapterEmbeddingModel``; without one only the dimension is known.

    Raises:
        AdapterFileError: No square linear layer (``TwoLayerNN`` has no counterpart here), one with a bias other than zeros, or
            a file that holds something else than weights.
        StorageError: The file cannot be read.
        EmbeddingMismatchError: ``embed_model`` gives vectors of another dimension.
    """
    if hasattr(source, "_adapter"):
        embed_model = embed_model if embed_model is not None else getattr(source, "_base_embed_model", None)
        source = source._adapter
    if isinstance(source, str | os.PathLike):
        name, state = os.fspath(source), _read(Path(source))
    elif hasattr(source, "state_dict"):
        name, state = type(source).__name__, source.state_dict()
    else:
        raise AdapterFileError(
            f"import_linear_adapter takes a LinearLayer, an AdapterEmbeddingModel, or the path of a saved one; "
            f"got {type(source).__name__}."
        )
    weight = _weight(state, name)
    fingerprint = None
    if embed_model is not None:
        fingerprint = Embedder(embed_model).fingerprint()
        Fingerprint(len(weight)).check(fingerprint)  # the dimension
    linear = np.ascontiguousarray(weight.T - np.eye(len(weight), dtype=np.float32))
    origin = {"origin": "LlamaIndex's EmbeddingAdapterFinetuneEngine"}
    return QueryAdapter(len(weight), linear=linear, fingerprint=fingerprint, metadata=origin)


def _read(path: Path) -> Mapping[str, Any]:
    path = path / _FILE if path.is_dir() else path
    torch = require("torch", extra="train")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StorageError(f"Cannot read the adapter {path}: {error.strerror or error}.") from error
    except Exception as error:  # torch and pickle raise whatever a foreign file makes them raise
        raise AdapterFileError(f"{path} is not a file of weights that torch.save wrote: {error}") from error
    if not isinstance(state, Mapping):
        raise AdapterFileError(f"{path} holds a {type(state).__name__}, not the weights of a LinearLayer.")
    return state


def _weight(state: Mapping[str, Any], name: str) -> Vectors:
    """The matrix of a LinearLayer without a bias, (d, d) float32."""
    if "linear.weight" not in state or set(state) - {"linear.weight", "linear.bias"}:
        raise AdapterFileError(
            f"{name} is no LinearLayer; it has the weights {', '.join(map(str, state)) or 'of nothing'}. Only a linear map can "
            "be taken over. Train one here instead: DeepMemory.from_llama_index(index, path=…).train(queries, relevance)."
        )
    weight = np.asarray(state["linear.weight"].detach().cpu().float().numpy(), dtype=np.float32)
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1] or not np.isfinite(weight).all():
        raise AdapterFileError(f"{name} has a matrix of the shape {weight.shape}; it takes a square one of finite numbers.")
    if "linear.bias" in state and bool((state["linear.bias"] != 0).any()):
        raise AdapterFileError(
            f"{name} has a bias, which an adapter here has no place for: it adds the same vector to every query, whatever its "
            "length. Train it with bias=False (the engine's default)."
        )
    return weight
