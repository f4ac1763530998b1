"""Benchmarks that compare the pipeline with the tools that people would use instead: `python -m benchmarks`."""
