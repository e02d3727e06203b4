"""Every shipped protocol, and protocols of one's own."""

import pytest

from vgen.errors import UserError
from vgen.metrics import Protocol, load_protocol, protocol_names
from vgen.metrics.catalogue import METRICS
from vgen.metrics.pairs import PAIR_SCORES

NAMES = (
    "cdfvd_128 cdfvd_16 digan lfdm_40 mcvd pvdm pvdm_reconstruction pvdm_train16 reconstruction_16 stylegan_v_128 "
    "stylegan_v_128_s8 stylegan_v_16 tats videogpt_bair"
).split()


def test_the_shipped_protocols():
    assert protocol_names() == NAMES
    for name in NAMES:
        protocol = load_protocol(name)
        assert protocol.name == name and protocol.source and set(protocol.metrics) <= {*METRICS, *PAIR_SCORES}
        assert (protocol.made == "reconstructions") == ("reconstruction" in name)
    v, tats = load_protocol("stylegan_v_16"), load_protocol("tats")
    assert (v.n_real, v.n_fake, v.n_frames, v.stride, v.eps, v.cov) == (2048, 2048, 16, 1, 1e-3, "biased")
    assert (v.spatial, v.quantise, v.start_policy, v.per_video) == ("stretch", "round", "random", "one")
    assert (tats.eps, tats.quantise, tats.cov, tats.start_policy) == (1e-5, "trunc", "unbiased", "all_windows")
    s8 = load_protocol("stylegan_v_128_s8")
    assert (s8.n_frames, s8.stride, s8.fake_stride, s8.least_frames, s8.span) == (16, 8, 8, 128, 121)
    assert load_protocol("digan").trials == 10 and load_protocol("lfdm_40").n_real is None
    assert load_protocol("stylegan_v_128").n_frames == load_protocol("cdfvd_128").n_frames == 128
    assert load_protocol("pvdm_train16").n_real == load_protocol("pvdm_train16").n_fake == 16
    assert load_protocol("mcvd").quantise == "none" and load_protocol("videogpt_bair").n_real == 256


def test_values_that_differ_for_a_data_set():
    assert load_protocol("stylegan_v_16").of("UCF-101").split == "train+test"
    assert load_protocol("stylegan_v_16").of("SkyTimelapse").split == "train"
    assert load_protocol("tats").of("taichi").stride == 4 and load_protocol("tats").of("TaiChi").name == "tats"


def test_a_variant_has_another_name():
    protocol = load_protocol("stylegan_v_16")
    assert protocol.but(n_real=256, n_fake=256).name == "stylegan_v_16+n_real=256+n_fake=256"
    assert protocol.but(n_real=2048) == protocol
    with pytest.raises(UserError, match="no parameter 'n_reel'"):
        protocol.but(n_reel=3)


def test_a_protocol_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("n_frames: 8\nn_real: null\nstart_policy: chunks\nper_video: all\nmetrics: [kvd]\n")
    protocol = load_protocol(path)
    assert protocol == Protocol("mine", 8, n_real=None, start_policy="chunks", per_video="all", metrics=("kvd",))
    assert load_protocol(str(path)).to_dict()["metrics"] == ["kvd"]


@pytest.mark.parametrize(
    "text, what, hint",
    [
        ("n_frames: 8\nn_reel: 4", "no parameter 'n_reel'", "n_real"),
        ("n_frames: 8\nspatial: strech", "spatial is one of stretch, crop", "stretch"),
        ("n_frames: 0", "n_frames is a whole number from 1", None),
        ("n_frames: 8\ntrials: two", "trials is a whole number", None),
        ("n_frames: 8\neps: small", "eps cannot be", None),
        ("n_frames: 8\nseed: -1", "seed cannot be", None),
        ("n_real: 8", "how many frames", None),
        ("- 8", "a mapping", None),
        ("n_frames: [", "not valid YAML", None),
        ("n_frames: 8\nper_video: all", "all_windows or chunks", None),
        ("n_frames: 8\nstart_policy: uniform\nstride: 2", "no stride", None),
        ("n_frames: 8\ndata: {ucf101: {spilt: test}}", "no parameter 'spilt'", "split"),
        ("n_frames: 8\ndata: {ucf101: {stride: 0}}", "stride is a whole number", None),
        ("name: tats\nn_frames: 8", "ships", "otherwise"),
    ],
)
def test_mistakes_are_named(tmp_path, text, what, hint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=what) as raised:
        load_protocol(path)
    assert hint is None or hint in raised.value.hint


def test_unknown_names(tmp_path):
    with pytest.raises(UserError, match="no protocol 'stylegan_v16'") as raised:
        load_protocol("stylegan_v16")
    assert "stylegan_v_16" in raised.value.hint
    with pytest.raises(UserError, match="cannot read"):
        load_protocol(tmp_path / "none.yaml")


def test_a_change_goes_before_what_a_data_set_has():
    protocol = Protocol("own", 4, data={"taichi": {"stride": 4, "split": "test"}})
    changed = protocol.but(stride=2).of("TaiChi")
    assert (changed.name, changed.stride, changed.split) == ("own+stride=2", 2, "test")
    same = protocol.but(stride=1).of("taichi")
    assert (same.name, same.stride) == ("own+stride=1", 1), "for TaiChi that is a change"
    assert protocol.of("taichi").stride == 4 and protocol.but(n_real=2048).name == "own"
