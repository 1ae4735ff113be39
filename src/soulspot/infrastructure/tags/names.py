"""File name extensions: which kind of file, and which container, they stand for."""

from enum import Enum
from functools import lru_cache
from typing import Final

CONTAINERS: Final = {
    "mp3": "mp3", "mp2": "mp3", "mp1": "mp3", "mpga": "mp3", "flac": "flac", "oga": "ogg", "ogg": "ogg", "ogx": "ogg",
    "opus": "ogg", "spx": "ogg", "ogv": "ogg", "m4a": "mp4", "m4b": "mp4", "m4p": "mp4", "m4r": "mp4", "mp4": "mp4",
    "3gp": "mp4", "alac": "mp4", "wav": "wav", "wave": "wav", "aif": "aiff", "aiff": "aiff", "aifc": "aiff",
    "wma": "asf", "asf": "asf", "ape": "ape", "mpc": "musepack", "mp+": "musepack", "mpp": "musepack",
    "wv": "wavpack", "tta": "tta", "ofr": "optimfrog", "ofs": "optimfrog", "tak": "tak", "aac": "aac", "adts": "aac",
    "ac3": "ac3", "eac3": "ac3", "dsf": "dsf", "dff": "dsdiff", "mid": "midi", "midi": "midi", "kar": "midi",
}  # fmt: skip
"""The usual container of each audio extension."""
_AUDIO = CONTAINERS.keys() | {"dts", "shn"}
_OTHER = frozenset(
    ("jpg", "jpeg", "png", "gif", "webp", "bmp", "tif", "tiff", "svg", "txt", "md", "rst", "log", "cue", "m3u", "m3u8")
    + ("pls", "xspf", "nfo", "sfv", "md5", "sha1", "sha256", "ffp", "pdf", "doc", "docx", "rtf", "htm", "html", "css")
    + ("js", "json", "jsonl", "xml", "yaml", "yml", "toml", "ini", "cfg", "conf", "csv", "tsv", "db", "sqlite", "lock")
    + ("zip", "rar", "7z", "gz", "xz", "bz2", "tar", "exe", "dll", "sh", "py", "c", "h", "torrent", "url", "lnk", "lrc")
    + ("srt", "ass", "sub", "avi", "mkv", "webm", "mov", "wmv", "flv", "mpg", "mpeg", "iso", "img", "accurip", "bak")
)


class Kind(Enum):
    AUDIO = "audio"
    OTHER = "other"
    UNKNOWN = "unknown"


def kind_of_name(name: str) -> Kind:
    """Return the kind that the extension of a file stands for; UNKNOWN if only its content can tell."""
    return _kind_of_extension(name.rpartition(".")[2].lower() if "." in name[1:] else "")


@lru_cache(maxsize=4096)
def _kind_of_extension(extension: str) -> Kind:
    if extension in _AUDIO:
        return Kind.AUDIO
    return Kind.OTHER if extension in _OTHER else Kind.UNKNOWN
