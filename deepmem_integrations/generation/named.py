"""Language models by name, as the command line and the web application take them."""

from deepmem_integrations.errors import GenerationError
from deepmem_integrations.generation.extractive import Extractive
from deepmem_integrations.generation.openai import OpenAIModel


def language_model(uri: str) -> Extractive | OpenAIModel:
    """Open the language model that a URI names.

    Raises:
        GenerationError: The URI names none.
    """
    kind, _, model = uri.partition(":")
    if uri == "extractive":
        return Extractive()
    if kind == "openai" and model:
        return OpenAIModel(model)
    raise GenerationError(f"{uri!r} names no language model: write openai:MODEL, e.g. openai:gpt-4o-mini, or extractive.")
