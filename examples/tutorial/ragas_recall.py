"""Measures, with ragas, the context recall of the contexts that the tutorial saved, without and with Deep Memory.

With Deep Memory there are two sides: ``transform`` is v3's own line, and ``retriever`` ranks by words and remembered answers as
well.

The script needs a separate environment, because ragas 0.4.3 imports only beside langchain-community below 0.4. Without a key, the
measure needs no language model: in `NonLLMContextRecall`, a reference counts as recalled where the string distance to one of the
retrieved contexts is small. With ``OPENAI_API_KEY``, a language model also judges which statements of the reference the contexts
support, as on LangChain's former page.
"""

import asyncio
import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")  # so that nothing leaves the machine
warnings.filterwarnings("ignore", "Importing .* from 'ragas.metrics' is deprecated", DeprecationWarning)  # 0.4.3 is pinned

from ragas import SingleTurnSample
from ragas.metrics import LLMContextRecall, NonLLMContextRecall

TOGETHER = 8
SIDES = ("without", "transform", "retriever")


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
    print(f"{'contexts':<22}{'measure':<30}" + "".join(f"{side:>11}" for side in SIDES))
    for file in files:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for metric in metrics:
            means = []
            for side in SIDES:
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
            print(f"{file.name:<22}{metric.name:<30}" + "".join(f"{mean:>11.3f}" for mean in means))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("FOLDER", "deepmem-tutorial")))
