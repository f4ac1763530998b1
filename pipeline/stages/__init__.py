"""The six stages and the table that describes them."""
