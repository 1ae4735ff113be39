"""The command line, the only package that prints. Only the entry point `soulspot.__main__` imports it."""
