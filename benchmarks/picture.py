"""Draws the gain on each collection from the results of the comparison: the picture of the README, docs/pictures/gain.svg.

python -m benchmarks.picture
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import FOLDER, Row, read

FILE = Path(__file__).parent.parent / "docs" / "pictures" / "gain.svg"
MODEL = "minilm"
SIDES = {"none": "plain vectors", "bm25-vectors": "hybrid search (RRF)", "ours-retriever": "Deep Memory"}
"""The row of a method → its name in the picture."""
COLLECTIONS = {
    "scifact": "scifact",
    "nfcorpus": "nfcorpus",
    "cranfield": "cranfield",
    "stackfaq": "stackfaq",
    "tatqa": "tatqa, answers unseen",
}
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 760, 170, 60, 58, 14, 18

STYLE = """<style>
.gain { --ink: #1f2328; --plain: #9aa4b2; --hybrid: #6e8fb5; --ours: #3949ab; font: 13px sans-serif; }
@media (prefers-color-scheme: dark) { .gain { --ink: #e6edf3; --plain: #6b7684; --hybrid: #5f7fa6; --ours: #7986cb; } }
.gain text { fill: var(--md-default-fg-color, var(--ink)); }
.gain .whisker { stroke: var(--md-default-fg-color, var(--ink)); stroke-width: 1.2; fill: none; }
</style>"""
COLOURS = ("var(--plain)", "var(--hybrid)", "var(--ours)")


def picture(rows: Sequence[Row]) -> str:
    """Make the SVG text: nDCG@10 of each method on each collection, and the 95% interval of the gain over plain vectors."""
    found = {(row["collection"], row["row"]): row["all"] for row in rows if row["model"] == MODEL and "all" in row}
    height = TOP + len(COLLECTIONS) * (len(SIDES) * BAR + GAP) + 8
    parts = ['<text x="0" y="16" font-weight="bold">nDCG@10 on test queries that took no part in training</text>']
    for number, (title, colour) in enumerate(zip(SIDES.values(), COLOURS, strict=True)):
        x = LEFT + number * 180
        parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{colour}"/><text x="{x + 18}" y="39">{title}</text>')
    said = []
    for number, (collection, title) in enumerate(COLLECTIONS.items()):
        y = TOP + number * (len(SIDES) * BAR + GAP)
        parts.append(f'<text x="{LEFT - 10}" y="{y + 1.5 * BAR + 5:g}" text-anchor="end">{title}</text>')
        scores = [100 * found[collection, side]["mean"]["ndcg@10"] for side in SIDES]
        said.append(f"{title}: " + ", ".join(f"{name} {score:.1f}" for name, score in zip(SIDES.values(), scores, strict=True)))
        for place, (score, colour) in enumerate(zip(scores, COLOURS, strict=True)):
            top = y + place * BAR
            parts.append(f'<rect x="{LEFT}" y="{top}" width="{_x(score) - LEFT:.1f}" height="{BAR - 2}" fill="{colour}"/>')
        gain = found[collection, "ours-retriever"]["gain"]["ndcg@10"]
        low, high = (_x(scores[0] + 100 * gain[side]) for side in ("low", "high"))
        middle = y + 2.5 * BAR - 1
        parts.append(
            f'<path class="whisker" d="M{low:.1f} {middle:g}H{high:.1f}M{low:.1f} {middle - 3:g}v6M{high:.1f} {middle - 3:g}v6"/>'
        )
        parts.append(f'<text x="{high + 7:.1f}" y="{middle + 5:g}" font-weight="bold">{scores[-1]:.1f}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="gain" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    )
    return "\n".join([head, f"<title>{'; '.join(said)}</title>", STYLE, *parts, "</svg>"]) + "\n"


def _x(score: float) -> float:
    return LEFT + score / 100 * (WIDTH - LEFT - RIGHT)


if __name__ == "__main__":
    FILE.write_text(picture(read(FOLDER / "compare.json")), encoding="utf-8")
