"""Monitoring: metrics, probes, and the endpoints that serve them. Only the daemon and its checks import it."""
