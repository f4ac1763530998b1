"""Runs stages against the store: inputs, cache, commit, publication. Also garbage collection, verify and predict."""
