"""Access to everything outside soulspot, one package for each.

All other packages may import it. It imports only `errors`, and nothing at its own import, so a tag reader starts fast.
"""
