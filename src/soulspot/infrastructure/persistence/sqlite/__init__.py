"""The SQLite backend: its writer, its engine, its lock file.

`persistence.database` chooses it.
"""
