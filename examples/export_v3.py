"""Write a Deep Lake v3 data set to a file of JSON lines. The script runs in an environment with v3.

    python3 -m venv .venv-v3 && .venv-v3/bin/pip install "deeplake<4"
    .venv-v3/bin/python examples/export_v3.py OLD_DATA_SET export.jsonl

OLD_DATA_SET is a path or a cloud address. For hub:// addresses, v3 needs ACTIVELOOP_TOKEN.
"""

import json
import os
import sys

os.environ["BUGGER_OFF"] = "true"  # turns off the usage reports of v3

import deeplake


def main(path: str, file: str) -> None:
    dataset = deeplake.load(path, read_only=True, verbose=False)
    missing = {"id", "text", "metadata", "embedding"} - set(dataset.tensors)
    if missing:
        raise SystemExit(f"{path} has no {', '.join(sorted(missing))}, so it is not a data set of v3's vector store.")
    with open(file, "w", encoding="utf-8") as out:
        for row in dataset:
            line = {name: row[name].data()["value"] for name in ("id", "text", "metadata")}
            out.write(json.dumps({**line, "embedding": row["embedding"].numpy().tolist()}, ensure_ascii=False) + "\n")
    print(f"{len(dataset)} documents in {file}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2])
