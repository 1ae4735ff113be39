"""What the audio of a file is; what mutagen lacks is derived, what it gets absurd is left out."""

import math
from typing import Any

_LOSSLESS = frozenset(
    ("FLAC", "OggFLAC", "WAVE", "AIFF", "MonkeysAudio", "WavPack", "TrueAudio", "OptimFROG", "TAK", "DSF", "DSDIFF")
)
_CODECS = {
    "MP3": "mp3", "FLAC": "flac", "OggFLAC": "flac", "OggVorbis": "vorbis", "OggOpus": "opus", "OggSpeex": "speex",
    "OggTheora": "vorbis", "WAVE": "pcm", "AIFF": "pcm", "MonkeysAudio": "ape", "Musepack": "musepack", "TAK": "tak",
    "WavPack": "wavpack", "TrueAudio": "tta", "OptimFROG": "optimfrog", "DSF": "dsd", "DSDIFF": "dsd", "AAC": "aac",
    "AC3": "ac3", "SMF": "midi",
}  # fmt: skip
_LONGEST = 30 * 24 * 3600
OPUS_RATE = 48_000  # by definition, RFC 7845


def stream_of(opened: Any, size: int) -> dict[str, Any]:  # noqa: ANN401 - mutagen has no types
    """Return the fields of `TrackTags` that tell of the stream; `size` is the file's, in bytes."""
    kind, info = type(opened).__name__, opened.info
    duration = _number(getattr(info, "length", None))
    if duration is not None and not 0 < duration < _LONGEST:
        duration = None
    bitrate = _whole(getattr(info, "bitrate", None))
    if not bitrate and duration:
        bitrate = round(size * 8 / duration)
    codec = _CODECS.get(kind)
    if kind == "MP4":
        name = str(getattr(info, "codec", ""))
        codec = "alac" if name == "alac" else name.partition(".")[0].replace("mp4a", "aac") or None
    elif kind == "ASF":
        codec = str(getattr(info, "codec_type", "") or "wma")[:32].lower()
    elif kind == "MP3":
        codec = f"mp{getattr(info, 'layer', 3)}"
    channels = getattr(info, "channels", None)
    return {
        "container": kind.lower()[:32],
        "codec": codec,
        "lossless": kind in _LOSSLESS or codec == "alac" or (kind == "ASF" and "lossless" in str(codec)),
        "duration": duration,
        "bitrate": bitrate or None,
        "sample_rate": _whole(getattr(info, "sample_rate", None)) or (OPUS_RATE if kind == "OggOpus" else None),
        "channels": None if isinstance(channels, bool) else _whole(channels) or None,
        "bits_per_sample": _whole(getattr(info, "bits_per_sample", None)) or None,
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < 1 << 31 else None
