"""Is this file audio? By its name where the name says so, by its first bytes where it does not."""

from enum import Enum
from functools import lru_cache

_AUDIO = frozenset(
    ("mp3", "mp2", "mp1", "mpga", "flac", "ogg", "oga", "ogv", "ogx", "opus", "spx", "m4a", "m4b", "m4p", "m4r", "mp4")
    + ("3gp", "wav", "wave", "aif", "aiff", "aifc", "wma", "asf", "ape", "mpc", "mp+", "mpp", "wv", "tta", "ofr", "ofs")
    + ("tak", "aac", "adts", "ac3", "eac3", "dsf", "dff", "mid", "midi", "kar", "alac", "dts", "shn")
)
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
    """Return what a file's extension says that it is; UNKNOWN where only its content can tell."""
    return _kind_of_extension(name.rpartition(".")[2].lower() if "." in name[1:] else "")


@lru_cache(maxsize=4096)
def _kind_of_extension(extension: str) -> Kind:
    if extension in _AUDIO:
        return Kind.AUDIO
    return Kind.OTHER if extension in _OTHER else Kind.UNKNOWN
