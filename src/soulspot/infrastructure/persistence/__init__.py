"""The catalogue in its database: models, repositories, queries, schema, copies.

The ingest imports it, and everything that reads the catalogue.
"""
