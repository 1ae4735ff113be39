"""Takes one file in: waits until it is complete, has its tags read, hands them to the catalogue.

Only the pipeline imports it.
"""
