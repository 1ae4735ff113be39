"""Write the small audio files that the tests copy and tag: half a second of a tone in each format. Needs ffmpeg."""

import subprocess
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
}

for extension, options in FORMATS.items():
    target = Path(__file__).with_name(f"tone.{extension}")
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.5:sample_rate=16000", "-ac", "1"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *tone, *options, "-map_metadata", "-1", str(target)], check=True)
