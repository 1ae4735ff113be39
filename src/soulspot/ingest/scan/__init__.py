"""Decides where to look: full scans and hinted paths, compared with the catalogue. Only the pipeline imports it."""
