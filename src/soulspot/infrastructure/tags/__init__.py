"""Reads the tags and stream of audio files, in processes of their own, into plain values or a failure."""

from soulspot.infrastructure.tags.model import PARSER_VERSION, Failure, Picture, Reading, TrackTags
from soulspot.infrastructure.tags.names import Kind, kind_of_name

__all__ = ["PARSER_VERSION", "Failure", "Kind", "Picture", "Reading", "TrackTags", "kind_of_name"]
