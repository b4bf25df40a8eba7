"""Prints the results as Markdown tables."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.data import COLLECTIONS, MODELS
from benchmarks.peers import PEERS
from benchmarks.results import FOLDER, METRICS, Row, read

TITLES = {key: peer.title for key, peer in PEERS.items()} | {"re-embedded": "MiniLM run again", "finetune": "MiniLM fine-tuned"}


def overview(rows: Sequence[Row], model: str, parts: Sequence[str] = ("all",)) -> str:
    """Make the table of methods × collections for one model: nDCG@10 / recall@10, in points of 100, each with its mark.

    With other parts than all queries, a collection has a column for each part that is large enough to be reported.
    """
    found = {(row["row"], row["collection"]): row for row in rows if row["model"] == model}
    none = {name: found["none", name] for name in COLLECTIONS if ("none", name) in found}
    columns = [(name, part) for name in none for part in parts if "mean" in none[name][part]]
    lines = []
    for key, title in TITLES.items():
        cells = [_pair(found[key, name], part) if (key, name) in found else "" for name, part in columns]
        rewrites = next((row["rewrites_index"] for (k, _), row in found.items() if k == key), False)
        if any(cells):
            lines.append([title, "yes" if rewrites else "", *cells])
    return _markdown([model, "index rewritten", *(" ".join((name, part)).removesuffix(" all") for name, part in columns)], lines)


def details(rows: Iterable[Row]) -> str:
    """Make the table of one collection × model: all metrics, the gain in nDCG@10, seen and unseen queries, and the time."""
    found = {row["row"]: row for row in rows}
    first = next(row for row in found.values() if "all" in row)
    kinds = [kind for kind in ("seen", "unseen") if "mean" in first[kind] and first[kind]["queries"] < first["all"]["queries"]]
    counts = f"{first['all']['queries']} queries, {first['seen']['queries']} seen, {first['unseen']['queries']} unseen"
    head = [f"{first['collection']} × {first['model']}: {counts}", *METRICS, "gain in nDCG@10 [95%]"]
    head += [f"{kind}: nDCG@10, gain" for kind in kinds]
    lines = []
    for key, title in TITLES.items():
        if key not in found:
            continue
        row = found[key]
        title += " (rewrites the index)" if row["rewrites_index"] else ""
        if "error" in row:
            lines.append([title, row["error"], *[""] * (len(head) - 1)])
            continue
        values = [f"{100 * row['all']['mean'][metric]:.1f}" for metric in METRICS]
        parts = [f"{100 * row[kind]['mean']['ndcg@10']:.1f}, {_gain(row[kind])}" for kind in kinds]
        lines.append([title, *values, _gain(row["all"]), *parts, f"{row.get('cpu_seconds', 0):.1f}"])
    return _markdown([*head, "CPU seconds"], lines)


def _pair(row: Row, part: str) -> str:
    if "error" in row:
        return "failed"
    return " / ".join(f"{100 * row[part]['mean'][metric]:.1f}{_mark(row[part], metric)}" for metric in ("ndcg@10", "recall@10"))


def _mark(part: Row, metric: str) -> str:
    gain = part["gain"][metric]
    return "↑" if gain["low"] > 0 else "↓" if gain["high"] < 0 else ""


def _gain(part: Row) -> str:
    gain = {name: 100 * value for name, value in part["gain"]["ndcg@10"].items()}
    return f"{gain['mean']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def main() -> None:
    """Print ``results/compare.json`` and ``results/finetune.json``, or other files of the same kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=[FOLDER / "compare.json", FOLDER / "finetune.json"])
    rows = [row for file in parser.parse_args().files for row in read(file)]
    print(
        "nDCG@10 / recall@10; ↑ ↓ = better or worse than no adaptation, the 95% interval of the paired difference leaves 0 out.\n"
    )
    models = [model for model in MODELS if any(row["model"] == model for row in rows)]
    for model in models:
        print(overview(rows, model))
    for model in models:
        print(overview(rows, model, ("seen", "unseen")))
    for model in models:
        for name in COLLECTIONS:
            chosen = [row for row in rows if (row["model"], row["collection"]) == (model, name)]
            if any("all" in row for row in chosen):
                print(details(chosen))


if __name__ == "__main__":
    main()
