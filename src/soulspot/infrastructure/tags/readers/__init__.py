"""The processes that read tags and covers, and their pools."""
