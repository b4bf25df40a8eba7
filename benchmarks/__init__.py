"""Benchmarks that compare this library with other methods, each run with its own package."""
