"""Declares the arguments and help of each command for typer.

Imports an action only when its command runs. Only `cli.app` imports it.
"""
