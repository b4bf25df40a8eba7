from deepmem_integrations.demo.answers import extract_answer
from deepmem_integrations.demo.langchain import ExtractiveChatModel
from deepmem_integrations.demo.llama_index import ExtractiveLLM

CONTEXT = "Vacuum gives space back to the table. A view saves a query under a name of its own. Locks are held until commit."


def test_an_extract_says_what_it_is_and_has_the_sentence_that_shares_most():
    assert extract_answer("How do I save a query?", CONTEXT, 1) == (
        "[an extract, no language model] A view saves a query under a name of its own."
    )
    assert "Nothing in the context" in extract_answer("Zebras?", CONTEXT)


def test_the_stand_ins_find_context_and_question_in_their_frameworks_prompts():
    from langchain_classic.chains.question_answering.stuff_prompt import PROMPT_SELECTOR
    from llama_index.core.response_synthesizers import get_response_synthesizer
    from llama_index.core.schema import NodeWithScore, TextNode

    model = ExtractiveChatModel()
    chain = PROMPT_SELECTOR.get_prompt(model) | model  # RetrievalQA's own prompt
    told = chain.invoke({"context": CONTEXT, "question": "How do I save a query?"}).text
    assert told.startswith("[an extract, no language model]") and "A view saves a query" in told
    assert "Use the following" not in told  # the instructions are no context

    synthesizer = get_response_synthesizer(llm=ExtractiveLLM())
    told = str(synthesizer.synthesize("How do I save a query?", [NodeWithScore(node=TextNode(text=CONTEXT))]))
    assert told.startswith("[an extract, no language model]") and "A view saves a query" in told and "prior knowledge" not in told
