"""The parsers: one module for each tag format or container, and mutagen for the rest."""
