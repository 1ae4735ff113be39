"""Writes the small audio files that the tests copy and tag: half a second of a tone in each format.

Needs ffmpeg with its usual encoders, and mpcenc of Debian's musepack-tools.
"""

import struct
import subprocess
import tempfile
from pathlib import Path

FORMATS = {
    "mp3": ["-c:a", "libmp3lame", "-b:a", "32k"],
    "flac": ["-c:a", "flac"],
    "ogg": ["-c:a", "libvorbis", "-q:a", "0"],
    "opus": ["-c:a", "libopus", "-b:a", "16k"],
    "m4a": ["-c:a", "aac", "-b:a", "32k"],
    "wav": [],
    "aiff": [],
    "wma": ["-c:a", "wmav2", "-b:a", "32k"],
    "wv": ["-c:a", "wavpack"],
    "tta": ["-c:a", "tta"],
    "spx": ["-c:a", "libspeex"],
    "oga": ["-c:a", "flac"],
    "alac.m4a": ["-c:a", "alac"],
    "aac": ["-c:a", "aac", "-b:a", "32k"],
    "ac3": ["-c:a", "ac3", "-ar", "32000", "-b:a", "32k"],
    "mp2": ["-c:a", "mp2", "-b:a", "32k"],
}
TONE = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.5:sample_rate=16000", "-ac", "1"]


def ffmpeg(target: Path, *options: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *TONE, *options, "-map_metadata", "-1", str(target)], check=True)


def dsf(samples: bytes) -> bytes:
    """Return a DSF file, one channel of DSD at 2.8 MHz; nothing that Debian has writes one."""
    data = b"data" + struct.pack("<Q", 12 + len(samples)) + samples
    form = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, 2_822_400, 1, len(samples) * 8, 4096, 0)
    return b"DSD " + struct.pack("<QQQ", 28, 28 + len(form) + len(data), 0) + form + data


def main() -> None:
    here = Path(__file__).parent
    for extension, options in FORMATS.items():
        ffmpeg(here / f"tone.{extension}", *options)
    with tempfile.TemporaryDirectory() as scratch:
        ffmpeg(Path(scratch, "tone.wav"), "-ar", "44100")
        subprocess.run(["mpcenc", "--silent", "--overwrite", f"{scratch}/tone.wav", str(here / "tone.mpc")], check=True)
    (here / "tone.dsf").write_bytes(dsf(bytes(range(256)) * 32))


if __name__ == "__main__":
    main()
