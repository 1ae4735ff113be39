"""What only SQLite needs: its writer, its engine, its lock file.

`persistence.database` chooses it.
"""
