"""What a file's tags become, written in one transaction a file. Everything above it in the ingest imports it."""
