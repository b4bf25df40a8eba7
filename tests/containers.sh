#!/bin/sh
# Tries the two ways in which a data folder could harm a machine, in namespaces of their own: a `cancel` that kills a process of
# another container, and code in a store's files. Run it where the tests may not make namespaces: sudo sh tests/containers.sh [PYTHON]
set -eu
python=${1:-python}
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD"
echo "namespaces: $(unshare --user --map-root-user --pid --fork --mount-proc readlink /proc/self/ns/pid)"
unshare --user --map-root-user --pid --fork --mount-proc "$python" -m pytest -n 0 -q -p no:cacheprovider \
    tests/test_processes.py tests/cli/test_hostile_stores.py
"$python" -m pytest -n 0 -q -p no:cacheprovider tests/test_processes.py -k container
