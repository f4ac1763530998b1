"""The assets by which DAGs start one another."""

from airflow.sdk import Asset

published = Asset("stackoverflow_tagger_model")
"""Is updated by each published version."""

declined = Asset("stackoverflow_tagger_declined")
"""Is updated when the live model's accuracy on newly tagged posts has fallen too far, which starts a retraining."""
