"""The command line, the only place that prints. Nobody imports it but the entry point `soulspot.__main__`."""
