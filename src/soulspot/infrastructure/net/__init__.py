"""Sockets: addresses, the control socket's protocol, a small HTTP server.

The daemon, the page and the command line import it.
"""
