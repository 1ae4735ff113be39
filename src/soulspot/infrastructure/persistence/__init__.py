"""The catalogue in its database: models, repositories, schema, copies.

The ingest imports it, and whoever reads the catalogue.
"""
