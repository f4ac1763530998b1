"""Published versions, the log of what was live, and the folder that a server reads."""
