"""The report of a run: one HTML page that says whether its model may be trusted, and why or why not."""
