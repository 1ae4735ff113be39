"""A page that shows what became of the files: it reads the catalogue, follows the daemon, and changes nothing.

It runs in a process of its own, so that no request takes the daemon's time, and needs `pip install 'soulspot[web]'`.
Only the command line imports it.
"""
