"""Scans folders and checks hinted paths, and compares them with the catalogue. Only the pipeline imports it."""
