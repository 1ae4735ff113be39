"""Files that are gone: moved, missing, or on a disk that is offline. Intake and scan import it."""
