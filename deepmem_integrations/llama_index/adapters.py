"""The import of adapters that LlamaIndex's own ``EmbeddingAdapterFinetuneEngine`` trained."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmem_integrations._extras import require
from deepmem_integrations._files import user_path
from deepmem_integrations._vectors import Vectors
from deepmem_integrations.adapter import Fingerprint, QueryAdapter
from deepmem_integrations.embedding import Embedder
from deepmem_integrations.errors import AdapterFileError, StorageError

_FILE = "pytorch_model.bin"


def import_linear_adapter(source: Any, embed_model: Any = None) -> QueryAdapter:
    """Convert an adapter that ``EmbeddingAdapterFinetuneEngine`` trained, to serve it here or to compare it with a trained model.

    The engine trains a ``LinearLayer`` without a bias by default. The converted adapter ranks in the same way: W x and
    x + x (Wᵀ − 1) are the same vector, and the length of a vector makes no difference to cosine similarity.

    Args:
        source: The ``LinearLayer``, the ``AdapterEmbeddingModel`` that ``engine.get_finetuned_model()`` returns, the folder that
            the engine wrote (``model_output_path``), or the ``pytorch_model.bin`` in the folder. Code in the file is not run
            (``torch.load(weights_only=True)``).
        embed_model: The embedding model that the adapter was trained for, as `Embedder` takes it, so that the adapter refuses
            other models. By default the model inside an ``AdapterEmbeddingModel``. Without an embedding model, the adapter
            checks only the dimension.

    Returns:
        An adapter with a linear part.

    Raises:
        AdapterFileError: The source is not a square linear layer (``TwoLayerNN`` has no counterpart here), it has a bias other
            than zeros, or the file does not hold weights.
        StorageError: The file cannot be read.
        EmbeddingMismatchError: ``embed_model`` returns vectors of another dimension.

    Example:
        >>> from llama_index.embeddings.adapter import LinearLayer
        >>> import_linear_adapter(LinearLayer(8, 8))
        QueryAdapter(8 dimensions, linear)
    """
    if hasattr(source, "_adapter"):
        embed_model = embed_model if embed_model is not None else getattr(source, "_base_embed_model", None)
        source = source._adapter
    if isinstance(source, str | os.PathLike):
        name, state = os.fspath(source), _read(Path(user_path(source)))
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
        Fingerprint(len(weight)).check(fingerprint)  # a fingerprint without probes compares the dimension alone
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
    except Exception as error:  # a file of another kind may make torch and pickle raise any error
        raise AdapterFileError(f"{path} is not a file of weights that torch.save wrote: {error}") from error
    if not isinstance(state, Mapping):
        raise AdapterFileError(f"{path} holds a {type(state).__name__}, not the weights of a LinearLayer.")
    return state


def _weight(state: Mapping[str, Any], name: str) -> Vectors:
    """Return the matrix of a LinearLayer without a bias, (d, d) float32."""
    if "linear.weight" not in state or set(state) - {"linear.weight", "linear.bias"}:
        raise AdapterFileError(
            f"{name} is no LinearLayer (its weights are {', '.join(map(str, state)) or 'empty'}), and only a LinearLayer can be "
            "imported. Train one here instead: DeepMemory.from_llama_index(index, path=…).train(queries, relevance)."
        )
    weight = np.asarray(state["linear.weight"].detach().cpu().float().numpy(), dtype=np.float32)
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1] or not np.isfinite(weight).all():
        raise AdapterFileError(
            f"{name} has a matrix of the shape {weight.shape}; only a square matrix of finite numbers can be imported."
        )
    if "linear.bias" in state and bool((state["linear.bias"] != 0).any()):
        raise AdapterFileError(
            f"{name} has a bias, a vector that is added to every query, and a QueryAdapter has no bias. Train it with bias=False "
            "(the engine's default)."
        )
    return weight
