"""The page in a real browser, where there is one: no error, every video decodes, it fits a phone, it is not blank."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.run_directory import write_run
from vgen.report import write_report

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in _NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on the path ({', '.join(_NAMES)})")

# Stands behind the page's own script and leaves what it finds where --dump-dom shows it.
PROBE = """<script>
(async () => {
  const videos = [...document.querySelectorAll("video")];
  await Promise.all(videos.map((video) => video.readyState >= 2 || new Promise((done) => {
    video.addEventListener("loadeddata", done, { once: true });
    video.addEventListener("error", done, { once: true });
    video.load();
  })));
  const root = document.documentElement, outside = [];
  for (const element of document.querySelectorAll("main *")) {
    const box = element.getBoundingClientRect();
    if (box.width && box.right > root.clientWidth + 1 && !element.closest(".wide, .scroll, nav, pre, svg"))
      outside.push(`${element.tagName}.${element.className} to ${Math.round(box.right)}`);
  }
  const found = {
    videos: videos.map((video) => [video.readyState, video.videoWidth, video.error && video.error.message]),
    width: root.clientWidth, content: root.scrollWidth, outside: outside.slice(0, 5),
  };
  root.dataset.found = JSON.stringify(found);
  if (parent !== window) parent.postMessage(JSON.stringify(found), "*");
})();
</script>"""
FRAME = """<!doctype html><body style="margin:0">
<iframe src="{page}" width="390" height="2400" style="border:0"></iframe>
<script>addEventListener("message", (event) => {{ document.documentElement.dataset.found = event.data; }});</script>"""


def browse(page, profile, *options):
    line = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    line += ["--enable-logging=stderr", "--virtual-time-budget=8000", *options, page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    said = [text for text in done.stderr.splitlines() if ":CONSOLE" in text]
    assert not said, said
    return done.stdout


def probe(page, profile, *options):
    found = re.search(r'data-found="([^"]*)"', browse(page, profile, "--dump-dom", *options))
    assert found, "the script of the test has not come to its end"
    return json.loads(found[1].replace("&quot;", '"'))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of one run, that of two of which one trains, and each in a frame as wide as a phone."""
    folder = tmp_path_factory.mktemp("browser")
    runs = [write_run(folder / "a"), write_run(folder / "b", seed=1, done=False, generated=2)]
    pages = {"one": write_report(runs[:1], folder / "one.html"), "two": write_report(runs, folder / "two.html")}
    for name in list(pages):
        probed = folder / f"{name}_probed.html"
        probed.write_text(pages[name].read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"))
        pages[f"{name}_probed"] = probed
        pages[f"{name}_phone"] = folder / f"{name}_phone.html"
        pages[f"{name}_phone"].write_text(FRAME.format(page=probed.name))
    return pages


@pytest.mark.parametrize(("name", "count"), [("one", 11), ("two", 13)])
def test_every_video_decodes(pages, tmp_path, name, count):
    found = probe(pages[f"{name}_probed"], tmp_path, "--window-size=1280,1000")
    assert len(found["videos"]) == count
    assert all(state >= 2 and width > 0 and error is None for state, width, error in found["videos"]), found
    assert found["content"] <= found["width"], "nothing is moved sideways but what is made for it"


@pytest.mark.parametrize("name", ["one", "two"])
def test_it_fits_a_phone(pages, tmp_path, name):
    found = probe(pages[f"{name}_phone"], tmp_path, "--window-size=500,2400")
    assert found["width"] == 390 and found["content"] <= 390 and not found["outside"], found
    assert all(state >= 2 for state, *_ in found["videos"])


@pytest.mark.parametrize(("page", "dark"), [("one", False), ("two", True)])
def test_the_picture_is_not_blank(pages, tmp_path, page, dark):
    picture = tmp_path / "page.png"
    scheme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []
    browse(pages[page], tmp_path / "profile", f"--screenshot={picture}", "--window-size=1280,2000", *scheme)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (2000, 1280)
    ground = pixels[5, 5]
    assert (ground.max() < 60) == dark
    drawn = (np.abs(pixels - ground).max(2) > 40).mean()
    assert 0.05 < drawn < 0.9
    assert np.unique(pixels.reshape(-1, 3), axis=0).shape[0] > 500, "text alone has no such many colours: videos"
