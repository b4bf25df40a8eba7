"""Arguments of Deep Lake v3 that both frameworks' vector stores still take and ignore, and what replaces them."""

import warnings
from collections.abc import Mapping
from typing import Any

from deepmem_integrations.errors import StoreError

_REPLACED = {
    "ingestion_batch_size": "each call that adds documents writes all of them in one commit, however many there are",
    "num_workers": "Deep Lake v4 sets its own number of threads",
    "ingestion_num_workers": "Deep Lake v4 sets its own number of threads",
    "verbose": "nothing is printed; use Python's logging",
    "exec_option": "queries run in Deep Lake v4's own engine",
    "runtime": "Deep Memory trains on this machine, and dataset_path says where the data set is",
    "index_params": "create an index on the data set itself with dataset[column].create_index(…)",
}
_MMR = ("fetch_k", "maximal_marginal_relevance", "use_maximal_marginal_relevance")
"""Options by which a search of v3 became one by maximal marginal relevance."""


def warn_of_replaced(arguments: dict[str, Any]) -> None:
    """Warn once about all arguments that are passed and no longer mean anything."""
    used = [name for name, value in arguments.items() if value is not None]
    if used:
        message = "; ".join(f"{name}: {_REPLACED[name]}" for name in used)
        warnings.warn(f"These arguments of Deep Lake v3 are ignored. {message}.", UserWarning, stacklevel=3)


def check_search(options: Mapping[str, Any], takes: str, mmr: str) -> None:
    """Check options of a search that the search does not know: warn of those of v3 that no longer mean anything.

    Args:
        options: The options that are none of the search's own.
        takes: What the search takes, for the error.
        mmr: How a search by maximal marginal relevance is asked for, for the error.

    Raises:
        StoreError: An option asks for something that is asked for in another way now.
        TypeError: An option is unknown.
    """
    if asked := [name for name in _MMR if options.get(name)]:
        raise StoreError(f"{' and '.join(asked)}: a search by maximal marginal relevance is {mmr}.")
    if unknown := [name for name in options if name not in _REPLACED and name not in _MMR]:
        raise TypeError(f"A search takes {takes}; got {', '.join(map(repr, unknown))}.")
    warn_of_replaced({name: value for name, value in options.items() if name in _REPLACED})
