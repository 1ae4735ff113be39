"""Shared by terminal and page: the status report, the advice for failures, formats.

The command line and the page import it.
"""
