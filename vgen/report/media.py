"""Puts video files into the page itself, up to a total size."""

import base64
from pathlib import Path

from vgen.report.markup import Markup, tag

# Base64 adds a third. A page of 64 MB still opens on a phone; one of several hundred does not.
VIDEO_BUDGET = 48 * 2**20


class Media:
    """Embeds videos as data URIs while the budget lasts, and remembers what had to stay out.

    Args:
        budget: Bytes of video files (before base64) that may go into one page.
    """

    def __init__(self, budget: int = VIDEO_BUDGET) -> None:
        self.budget = budget
        self.left_out: list[str] = []
        self.unreadable: list[str] = []

    def video(self, path: Path, label: str) -> Markup:
        """Returns a looping, silent player of an mp4 file, or a placeholder that says why there is none."""
        try:
            if path.stat().st_size > self.budget:
                self.left_out.append(path.name)
                return tag("div", "left out: the page would grow too large", class_="hole")
            data = path.read_bytes()
        except OSError as error:
            self.unreadable.append(f"{path.name}: {error.strerror or error}")
            return tag("div", "cannot be read", class_="hole")
        return self.embed(data, path.name, label)

    def embed(self, data: bytes, name: str, label: str) -> Markup:
        """The same for the content of a file."""
        # An mp4 file starts with a box whose type is `ftyp`; one that a crash cut short may be anything.
        if data[4:8] != b"ftyp":
            self.unreadable.append(f"{name}: not an mp4 file")
            return tag("div", "not a video", class_="hole")
        if len(data) > self.budget:
            self.left_out.append(name)
            return tag("div", "left out: the page would grow too large", class_="hole")
        self.budget -= len(data)
        return tag(
            "video",
            src="data:video/mp4;base64," + base64.b64encode(data).decode("ascii"),
            autoplay=True,
            loop=True,
            muted=True,
            playsinline=True,
            preload="auto",
            aria_label=label,
        )
