"""Arguments of Deep Lake v3 that both frameworks' vector stores still take and ignore, and what replaces them."""

import warnings
from typing import Any

_REPLACED = {
    "ingestion_batch_size": "each call that adds documents writes all of them in one commit, however many there are",
    "num_workers": "Deep Lake v4 sets its own number of threads",
    "ingestion_num_workers": "Deep Lake v4 sets its own number of threads",
    "verbose": "nothing is printed; use Python's logging",
    "exec_option": "queries run in Deep Lake v4's own engine",
    "runtime": "Deep Memory trains on this machine, and dataset_path says where the data set is",
    "index_params": "create an index on the data set itself with dataset[column].create_index(…)",
}


def warn_of_replaced(arguments: dict[str, Any]) -> None:
    """Warn once about all constructor arguments that are passed and no longer mean anything."""
    used = [name for name, value in arguments.items() if value is not None]
    if used:
        message = "; ".join(f"{name}: {_REPLACED[name]}" for name in used)
        warnings.warn(f"These arguments of Deep Lake v3 are ignored. {message}.", UserWarning, stacklevel=3)
