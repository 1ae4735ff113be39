"""inotify, through watchfiles. Only the daemon imports it."""
