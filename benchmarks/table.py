"""Print the results as Markdown tables."""

from collections.abc import Iterable, Sequence

from benchmarks.data import COLLECTIONS, MODELS
from benchmarks.peers import PEERS
from benchmarks.results import FOLDER, METRICS, Row, read

TITLES = {key: peer.title for key, peer in PEERS.items()} | {"re-embedded": "MiniLM run again", "finetune": "MiniLM fine-tuned"}


def overview(rows: Sequence[Row], model: str) -> str:
    """Return a table of methods × collections for one model: nDCG@10 / recall@10, in points of 100, with their marks."""
    found = {(row["row"], row["collection"]): row for row in rows if row["model"] == model}
    names = [name for name in COLLECTIONS if ("none", name) in found]
    lines = []
    for key, title in TITLES.items():
        cells = [_pair(found[key, name]) if (key, name) in found else "" for name in names]
        rewrites = next((row["rewrites_index"] for (k, _), row in found.items() if k == key), False)
        if any(cells):
            lines.append([title, "yes" if rewrites else "", *cells])
    return _markdown([model, "index rewritten", *names], lines)


def details(rows: Iterable[Row]) -> str:
    """Return a table for one collection and model: all metrics, the gain in nDCG@10, seen and unseen queries, and the time."""
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


def _pair(row: Row) -> str:
    if "error" in row:
        return "failed"
    return " / ".join(f"{100 * row['all']['mean'][metric]:.1f}{_mark(row, metric)}" for metric in ("ndcg@10", "recall@10"))


def _mark(row: Row, metric: str) -> str:
    gain = row["all"]["gain"][metric]
    return "↑" if gain["low"] > 0 else "↓" if gain["high"] < 0 else ""


def _gain(part: Row) -> str:
    gain = {name: 100 * value for name, value in part["gain"]["ndcg@10"].items()}
    return f"{gain['mean']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def main() -> None:
    """Print ``results/compare.json`` and ``results/finetune.json``."""
    rows = read(FOLDER / "compare.json") + read(FOLDER / "finetune.json")
    print(
        "nDCG@10 / recall@10; ↑ ↓ = better or worse than no adaptation, the 95% interval of the paired difference leaves 0 out.\n"
    )
    for model in MODELS:
        print(overview(rows, model))
    for model in MODELS:
        for name in COLLECTIONS:
            chosen = [row for row in rows if (row["model"], row["collection"]) == (model, name)]
            if any("all" in row for row in chosen):
                print(details(chosen))


if __name__ == "__main__":
    main()
