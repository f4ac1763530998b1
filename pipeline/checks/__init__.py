"""Checks that can stop a run: duplicates and drift in its data, and the gate before publication."""
