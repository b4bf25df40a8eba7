"""Benchmarks that compare the library with other methods, each measured with its own package."""
