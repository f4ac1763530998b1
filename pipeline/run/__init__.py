"""Runs a stage of a run: its inputs, the cache, the champion, processes that train together, and what follows it."""
