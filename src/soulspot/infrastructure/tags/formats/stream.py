"""Turns mutagen's description of a stream into fields of `TrackTags`, and drops absurd values from any stream."""

import math
from typing import Any

from soulspot.infrastructure.tags.texts import printable

_LOSSLESS = frozenset(
    ("FLAC", "OggFLAC", "WAVE", "AIFF", "MonkeysAudio", "WavPack", "TrueAudio", "OptimFROG", "TAK", "DSF", "DSDIFF")
)
_KINDS = {
    "MP3": ("mp3", "mp3"), "FLAC": ("flac", "flac"), "OggFLAC": ("ogg", "flac"), "OggVorbis": ("ogg", "vorbis"),
    "OggOpus": ("ogg", "opus"), "OggSpeex": ("ogg", "speex"), "OggTheora": ("ogg", None), "WAVE": ("wav", "pcm"),
    "AIFF": ("aiff", "pcm"), "MonkeysAudio": ("ape", "ape"), "Musepack": ("musepack", "musepack"),
    "TAK": ("tak", "tak"), "WavPack": ("wavpack", "wavpack"), "TrueAudio": ("tta", "tta"), "MP4": ("mp4", None),
    "OptimFROG": ("optimfrog", "optimfrog"), "DSF": ("dsf", "dsd"), "DSDIFF": ("dsdiff", "dsd"), "AAC": ("aac", "aac"),
    "AC3": ("ac3", "ac3"), "SMF": ("midi", "midi"), "ASF": ("asf", "wma"),
}  # fmt: skip
_AAC = {"2": "LC", "5": "HE-AAC", "29": "HE-AACv2", "1": "Main", "3": "SSR", "4": "LTP", "36": "ALS"}
_MP4_CODECS = {"mp4a": "aac", "ac-3": "ac3", "ec-3": "eac3", "fLaC": "flac", "Opus": "opus", ".mp3": "mp3"}
_MAX_DURATION = 30 * 24 * 3600
_MIN_BITRATE = 4
"""A lossy stream with fewer bits a second claims a wrong duration."""
_MAX_BITRATE = 1 << 29
_OPUS_RATE = 48_000  # by definition, RFC 7845


def stream_of(opened: Any) -> dict[str, Any]:  # noqa: ANN401 - mutagen has no types
    """Return the fields of `TrackTags` that describe the stream, as mutagen reports them."""
    kind, info = type(opened).__name__, opened.info
    container, codec = _KINDS.get(kind, (kind.lower()[:32], None))
    profile, lossless = None, kind in _LOSSLESS
    if kind == "MP4":
        codec, profile = _of_mp4(str(getattr(info, "codec", "")))
        lossless = codec in {"alac", "flac"} or profile == "ALS"
    elif kind == "ASF":
        name = str(getattr(info, "codec_name", "") or getattr(info, "codec_type", ""))
        profile, lossless = name.strip()[:64] or None, "lossless" in name.lower()
    elif kind in {"MP3", "_MPEG"}:
        container = "mp3"
        codec, profile = f"mp{info.layer}", f"MPEG-{info.version:g}"
    return {
            "container": container, "codec": codec, "profile": profile, "lossless": lossless,
            "duration": getattr(info, "length", None), "bitrate": getattr(info, "bitrate", None),
            "bitrate_mode": _mode(info), "encoder": getattr(info, "encoder_info", None) or None,
            "sample_rate": getattr(info, "sample_rate", None) or (_OPUS_RATE if kind == "OggOpus" else None),
            "channels": getattr(info, "channels", None),
            # MP4 always says 16 for a lossy stream.
            "bits_per_sample": getattr(info, "bits_per_sample", None) if lossless or kind != "MP4" else None,
    }  # fmt: skip


def plausible(stream: dict[str, Any], size: int) -> dict[str, Any]:
    """Return the fields of the stream of a file with `size` bytes: without impossible values, and with a bitrate."""
    duration = _number(stream.get("duration"))
    if duration is not None:
        is_compact = stream.get("lossless") or stream.get("container") == "midi"
        if not 0 < duration < _MAX_DURATION or (not is_compact and size * 8 < duration * _MIN_BITRATE):
            duration = None
    bitrate = _whole(stream.get("bitrate"))
    if duration and not (bitrate and bitrate < _MAX_BITRATE):
        bitrate = round(size * 8 / duration)
    channels = stream.get("channels")
    texts = {name: printable(value).strip() or None for name, value in stream.items() if isinstance(value, str)}
    return (
        stream
        | texts
        | {
            "duration": duration,
            "bitrate": bitrate if bitrate and bitrate < _MAX_BITRATE else None,
            "sample_rate": _whole(stream.get("sample_rate")) or None,
            "channels": None if isinstance(channels, bool) else _whole(channels) or None,
            "bits_per_sample": _whole(stream.get("bits_per_sample")) or None,
        }
    )


def _of_mp4(name: str) -> tuple[str | None, str | None]:
    """Return codec and profile from mutagen's name for a codec, such as "mp4a.40.2" or "alac"."""
    first, _, rest = name.partition(".")
    if first == "mp4a" and rest and not rest.startswith(("40", "67")):
        return {"69": "mp3", "6B": "mp3", "A5": "ac3", "A9": "dts"}.get(rest[:2].upper(), "mp4a"), None
    profile = _AAC.get(rest.rpartition(".")[2]) if first == "mp4a" else None
    if profile == "ALS":
        return "als", profile
    return _MP4_CODECS.get(first, first.strip().lower()) or None, profile


def _mode(info: Any) -> str | None:  # noqa: ANN401
    mode = str(getattr(info, "bitrate_mode", "")).rpartition(".")[2].lower()
    return mode if mode in {"cbr", "vbr", "abr"} else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < 1 << 31 else None
