"""Helpers of the DAG files: how a task fails, and how it opens the store."""
