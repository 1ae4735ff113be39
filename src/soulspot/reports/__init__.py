"""What the terminal and the page both say: the status report, advice for failures, formats.

The command line and the page import it.
"""
