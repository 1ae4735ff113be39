"""The web page: shows the catalogue and follows the daemon. It writes nothing; retries go through the daemon.

It runs in its own process, so requests take no time from the daemon, and needs `pip install 'soulspot[web]'`.
Only the command line imports it.
"""
