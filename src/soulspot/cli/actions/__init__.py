"""Carries out the commands, one module a command or group. Only `cli.arguments` imports it."""
