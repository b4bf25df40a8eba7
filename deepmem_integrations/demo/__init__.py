"""The demo: train and evaluate on real documents with a real embedding model, without a key or a server."""
