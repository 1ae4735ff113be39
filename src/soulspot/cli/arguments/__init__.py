"""What typer reads: the arguments and the help of each command.

Imports an action only when its command runs. Only `cli.app` imports it.
"""
