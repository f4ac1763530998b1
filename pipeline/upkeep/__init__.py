"""Keeps a store in order: removes what is old, verifies what is there, and signs it."""
