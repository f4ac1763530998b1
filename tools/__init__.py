"""Programs for maintaining the repository, which are not part of the installed package."""
