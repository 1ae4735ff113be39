"""The PostgreSQL backend: its writer, its engine, advisory locks, notifications, partitions.

`persistence.database` chooses it.
"""
