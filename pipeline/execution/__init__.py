"""Runs a stage of a run: its inputs, cache, commit and publication; garbage collection; predictions."""
