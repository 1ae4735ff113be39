"""The daemon's side of the control socket: the server and its commands. Only `daemon.main` imports it."""
