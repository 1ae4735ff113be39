"""Queries that answer a person: search, browsing, duplicates, the audit log.

The command line and the page import it.
"""
