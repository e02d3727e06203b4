"""Film strips: the right cells, in the order of the steps, between the given and the real clip."""

import json

import torch

from tests.run_directory import ball
from vgen.report.film import film_strip
from vgen.report.read import read_run
from vgen.video.figure import Layout, figure
from vgen.video.io import read_frames


def clips_of(run_dir, stage="diffusion"):
    return next(s for s in read_run(run_dir).stages if s.name == stage).clips


def test_a_row_per_clip_and_a_column_per_step(run_dir, tmp_path):
    strip = film_strip(clips_of(run_dir))
    assert strip.steps == [200, 400, 600]
    (tmp_path / "strip.mp4").write_bytes(strip.data)
    shown = torch.from_numpy(read_frames(tmp_path / "strip.mp4")).permute(3, 0, 1, 2)
    rows = {name: [torch.zeros(3, 1, 128, 128, dtype=torch.uint8)] * 5 for name in ("1 anger", "2 disgust", "3 fear")}
    layout = figure(rows, ["given", "step 200", "step 400", "step 600", "real"], side=128)[1]
    for row, name in enumerate(rows):
        real = ball(seed=row).repeat_interleave(2, 2).repeat_interleave(2, 3).float()
        expected = [real[:, :1].expand_as(real), *(real * (0.3 + 0.7 * step / 600) for step in (200, 400, 600)), real]
        for column, clip in enumerate(expected):
            assert (layout.cut(shown, name, column).float() - clip).abs().mean() < 8, (name, column)


def test_nothing_to_show(run_dir):
    clips = clips_of(run_dir)
    assert film_strip(clips[:1]) is None
    for path in (run_dir / "autoencoder" / "samples").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"layout": {"rows": 3}}))
    assert film_strip(clips_of(run_dir, "autoencoder")) is None


def test_a_torn_figure_is_left_out(run_dir):
    (run_dir / "diffusion" / "samples" / "step_00000400_samples.mp4").write_bytes(b"torn")
    assert film_strip(clips_of(run_dir)).steps == [200, 600]


def test_figures_of_another_layout_are_left_out(run_dir):
    path = run_dir / "diffusion" / "samples" / "step_00000200_samples.json"
    facts = json.loads(path.read_text())
    facts["layout"]["columns"] = 1
    path.write_text(json.dumps(facts))
    assert film_strip(clips_of(run_dir)).steps == [400, 600]


def test_a_layout_survives_its_sidecar(run_dir):
    layout = clips_of(run_dir)[0].layout
    assert Layout.from_dict(layout).rows == ("given", "real", "generated", "flow")
