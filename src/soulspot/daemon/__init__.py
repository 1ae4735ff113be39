"""The long-running process: state, health, pause, events, control socket, monitoring, hooks.

Only the command line imports it.
"""
