"""soulspot keeps a database of a music collection true to the folders on disk."""

__version__ = "0.1.0"
