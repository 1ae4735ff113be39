"""Takes one file through the ingest: waits until it is complete, has its tags read, writes it to the catalogue."""
