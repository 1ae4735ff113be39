"""What soulspot touches, one outside thing a package.

Everything above imports it. It imports only `errors`, and nothing by itself, so that a tag reader starts fast.
"""
