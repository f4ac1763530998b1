"""Asks published models: about texts that a person gives, and about newly tagged posts."""
