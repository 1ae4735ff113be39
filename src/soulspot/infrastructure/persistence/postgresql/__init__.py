"""What only PostgreSQL needs: its writer, its engine, advisory locks, notifications, partitions.

`persistence.database` chooses it.
"""
