"""Prints tables, times, progress, logs and the live view. The actions import it."""
