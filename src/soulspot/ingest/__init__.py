"""What soulspot does with a file, in the order of the flow. `bootstrap` builds it; the daemon and `scan` run it."""
