"""The demo: the main job on real documents with a real embedding model, without a key or a server."""
