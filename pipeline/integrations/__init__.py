"""Tells other systems what there is: MLflow of runs, Vertex AI of published versions."""
