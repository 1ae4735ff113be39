"""The long-running process: state, health, pause, events, and what it offers to the outside.

Only the command line imports it.
"""
