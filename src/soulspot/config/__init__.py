"""The settings: sections, sources, checks, documentation.

`bootstrap`, the daemon, the page and the command line import it and pass plain values down.
"""

from soulspot.config.loading import get_settings
from soulspot.config.paths import database_file
from soulspot.config.sections import Settings

__all__ = ["Settings", "database_file", "get_settings"]
