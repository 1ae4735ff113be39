"""Translates a file's tags and writes what they become, one transaction a file. The rest of the ingest builds on it."""
