"""Looks at the disk, and decides what differs from what is known. Imports nothing of the stages above it."""
