"""Owns mutagen, in worker processes: a file's tags and stream as plain values, or why they could not be read."""

from soulspot.infrastructure.tags.model import PARSER_VERSION, Failure, Picture, Reading, TrackTags
from soulspot.infrastructure.tags.names import Kind, kind_of_name

__all__ = ["PARSER_VERSION", "Failure", "Kind", "Picture", "Reading", "TrackTags", "kind_of_name"]
