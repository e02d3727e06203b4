import base64
import json
import re
from html.parser import HTMLParser

import pytest

from tests.run_directory import write_mp4, write_run
from vgen.errors import UserError
from vgen.report import read_run, render, write_report


class Balanced(HTMLParser):
    """Notes every tag that is closed out of order, and collects what a test asks about."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.elements, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parse(page):
    parser = Balanced()
    parser.feed(page)
    assert not parser.wrong and not parser.open
    return parser


def test_one_file_that_needs_nothing_else(run_dir):
    path = write_report([run_dir])
    assert path == run_dir / "report.html"
    parser = parse(path.read_text(encoding="utf-8"))
    for _, attributes in parser.elements:
        for name in ("src", "href", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), value
    assert not re.search(r"url\(|@import|https?://", "".join(parser.text))
    assert list(run_dir.glob(".report*")) == []


def test_videos_are_the_files_themselves(run_dir):
    parser = parse(render([read_run(run_dir)]))
    videos = [attributes for tag, attributes in parser.elements if tag == "video"]
    assert len(videos) == 7 + 2 * 2, "seven generated; of each stage the newest figure and a film strip"
    assert all({"autoplay", "loop", "muted", "playsinline"} <= set(video) for video in videos)
    embedded = {base64.b64decode(video["src"].partition(",")[2]) for video in videos}
    assert next(iter((run_dir / "generated").glob("*.mp4"))).read_bytes() in embedded


def test_the_grid_of_all_videos_has_the_full_width(run_dir):
    write_mp4(run_dir / "generated" / "grid.mp4")
    (run_dir / "generated" / "grid.json").write_text(json.dumps({"kind": "grid", "rows": "one row for each picture"}))
    page = render([read_run(run_dir)])
    assert "one row for each picture" in " ".join(parse(page).text)
    single = page.partition('<div class="videos">')[2].partition("</div>")[0]
    assert page.index('<div class="wide"') < page.index('<div class="videos">')
    assert "all generated videos" not in single and single.count("<video") == 7


def test_sections_and_figures(run_dir):
    text = " ".join(parse(render([read_run(run_dir)])).text)
    for expected in (
        "Samples",
        "Metrics",
        "Curves",
        "Configuration",
        "Cost",
        "Provenance",
        "happiness",
        "3.41",
        "45,575,391",
    ):
        assert expected in text
    assert "flow: where each pixel is read from" in text and "LFAE 66,004,557 parameters = published" in text
    assert "held-out subjects" in text and "lightning_configs/lfdm_mug.yaml" in text


def test_hostile_text_stays_text(run_dir):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    (run_dir / "config.yaml").write_text(f"# {evil}\nstages: {{}}\n")
    (run_dir / "evaluation" / "x.json").write_text(
        json.dumps({"metrics": {evil: {"value": evil, "unit": evil}}, "note": evil})
    )
    (run_dir / "generated" / "0000_anger.json").write_text(json.dumps({"captions": [evil]}))
    (run_dir / "diffusion" / "environment.json").write_text(json.dumps({"command": evil, evil: {evil: evil}}))
    (run_dir / "diffusion" / "metrics.csv").write_text(f"step,{evil}\n1,2\n2,3\n")
    parser = parse(render([read_run(run_dir)]))
    assert [tag for tag, _ in parser.elements].count("script") == 1
    assert not any(tag == "img" for tag, _ in parser.elements)


def test_a_run_that_trains_and_one_that_has_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("stages: {one: {}}")
    text = " ".join(parse(render([read_run(tmp_path)])).text)
    assert "not started" in text and "Nothing yet to show of" in text


def test_broken_videos_leave_a_hole(run_dir):
    (run_dir / "generated" / "0000_anger.mp4").write_bytes(b"")
    text = " ".join(parse(render([read_run(run_dir)])).text)
    assert "not a video" in text and "0000_anger.mp4: not an mp4 file" in text


def test_the_page_stays_small(run_dir):
    page = render([read_run(run_dir)], video_budget=1000)
    assert len(page) < 300_000
    assert "left out" in " ".join(parse(page).text)


def test_two_runs_side_by_side(tmp_path):
    runs = [write_run(tmp_path / "a", generated=1), write_run(tmp_path / "b", seed=1, done=False, generated=1)]
    out = write_report(runs, tmp_path / "compare" / "both.html")
    text = " ".join(parse(out.read_text(encoding="utf-8")).text)
    assert "What differs" in text and "stages.diffusion.model.init_args.dim" in text
    assert "600 of 1,200 steps" in text and "running" in text and "finished" in text
    assert "about 2 min 6 s left" in text
    assert "run_dir" not in text and "whole run" not in text, "of several configurations, the differences only"


def test_random_parts_are_shown(run_dir):
    (run_dir / "config.yaml").write_text("stages: {diffusion: {text_encoder: {random_init: true}}}")
    assert "randomly initialised network" in render([read_run(run_dir)])


def test_a_page_that_cannot_be_written(run_dir):
    (run_dir / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        write_report([run_dir], run_dir / "file" / "report.html")
