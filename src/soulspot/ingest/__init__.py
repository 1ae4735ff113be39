"""The way of a file into the catalogue. `bootstrap` builds the pipeline; the daemon and `scan` run it."""
