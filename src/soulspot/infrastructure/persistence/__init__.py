"""The catalogue in its database."""
