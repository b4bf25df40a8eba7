"""The main job on an embedded default: real documents, a real model, no key, no server."""
