"""Hooks: batches of changes, delivered to a command or a URL. Only the daemon imports it."""
