"""The posts as Parquet files between the stages, and the conversion of text to words and vectors."""

LABELS = "labels.txt"
"""The file of the tags, one a line, sorted; a tag's label is its line number, from 0."""

FEEDBACK_FILE = "feedback.parquet"
"""The file of the posts whose tag users told the server, with the columns `post` and `tags`."""
