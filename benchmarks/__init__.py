"""Speed beside the tools that people would use instead, measured in one process: `python -m benchmarks`."""
