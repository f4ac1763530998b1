"""The posts as Parquet files between the stages, and the conversion of text to words and vectors."""
