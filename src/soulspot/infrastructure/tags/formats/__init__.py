"""One module for each tag format or container, and mutagen for the rest. Only `tags.reader` imports it."""
