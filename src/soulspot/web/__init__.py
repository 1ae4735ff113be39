"""A page that shows what became of the files: it reads the catalogue, listens to the daemon, and changes nothing.

It runs in a process of its own, so that no request can take the daemon's time, and needs `pip install 'soulspot[web]'`.
"""
