"""What decides whether a run may go on: drift of its data, and the gate that a candidate must pass."""
