"""Measure context recall with and without Deep Memory, with ragas, on the contexts that the tutorial saved.

The script needs a separate environment, because ragas 0.4.3 can be imported only beside langchain-community below 0.4. Without
a key, the metric is `NonLLMContextRecall`, which needs no language model: a reference counts as recalled if a retrieved context
is close to it in string distance. With ``OPENAI_API_KEY``, a language model also judges which statements of the reference the
contexts support, as on LangChain's original page.
"""

import asyncio
import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")  # so that nothing leaves the machine
warnings.filterwarnings(
    "ignore", "Importing .* from 'ragas.metrics' is deprecated", DeprecationWarning
)  # the version is pinned to 0.4.3

from ragas import SingleTurnSample
from ragas.metrics import LLMContextRecall, NonLLMContextRecall

TOGETHER = 8


async def mean_score(metric, samples) -> float:
    gate = asyncio.Semaphore(TOGETHER)

    async def score(sample):
        async with gate:
            return await metric.single_turn_ascore(sample)

    scores = await asyncio.gather(*map(score, samples))
    return sum(scores) / len(scores)


def main(folder: Path) -> None:
    metrics = [NonLLMContextRecall()]
    if os.environ.get("OPENAI_API_KEY"):
        from langchain_openai import ChatOpenAI
        from ragas.llms import LangchainLLMWrapper

        metrics.append(LLMContextRecall(llm=LangchainLLMWrapper(ChatOpenAI(model="gpt-4o-mini", temperature=0))))
    files = sorted(folder.glob("contexts-*.jsonl"))
    if not files:
        raise SystemExit(f"No contexts in {folder}: run the tutorial first (python -m examples.tutorial.tutorial).")
    print(f"{'contexts':<22}{'measure':<30}{'without':>9}{'with':>9}")
    for file in files:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for metric in metrics:
            means = []
            for side in ("without", "with"):
                samples = [
                    SingleTurnSample(
                        user_input=row["question"],
                        retrieved_contexts=row[side],
                        reference_contexts=row["reference_contexts"],
                        reference="\n".join(row["reference_contexts"]),
                    )
                    for row in rows
                ]
                means.append(asyncio.run(mean_score(metric, samples)))
            print(f"{file.name:<22}{metric.name:<30}{means[0]:>9.3f}{means[1]:>9.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FOLDER", "deepmem-tutorial")))
