"""What only PostgreSQL needs: its writer, its engine, advisory locks, notifications.

`persistence.database` chooses it.
"""
