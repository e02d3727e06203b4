"""Neighbours and diversity, the store of generated clips, and words for detectors."""

import json

import pytest
import torch

from tests.tiny_detector import moving_clips, tiny_detector, write_classifier
from vgen.errors import UserError
from vgen.metrics import Protocol
from vgen.metrics.detectors.choice import chosen_detector, chosen_detectors, read_choices
from vgen.metrics.diversity import mean_distance
from vgen.metrics.evaluation import compare
from vgen.metrics.generated import ClipMaker, Sample, SampleStore, StoredClips, generate
from vgen.metrics.sources import TensorClips
from vgen.metrics.study import nearest, study

PROTOCOL = Protocol("tiny", 4, n_real=None, n_fake=None)


def test_nearest_rows():
    among = torch.tensor([[0.0, 0], [3, 4], [10, 0]], dtype=torch.float64)
    distances, places = nearest(torch.tensor([[0.0, 0], [10, 1]], dtype=torch.float64), among, 2)
    assert distances.tolist() == [[0, 5], [1, 58**0.5]] and places.tolist() == [[0, 1], [2, 1]]
    apart, others = nearest(among, among, 3, apart=True)
    assert apart.shape == (3, 2) and others[:, 0].tolist() == [1, 0, 1], "no row is its own neighbour"
    assert mean_distance(among) == pytest.approx((5 + 10 + 65**0.5) / 3)


def test_nearest_in_pieces_is_the_same(monkeypatch):
    rows = torch.randn(11, 3, dtype=torch.float64)
    whole = nearest(rows, rows, 2, apart=True)
    monkeypatch.setattr("vgen.metrics.study._ROWS", 4)
    pieces = nearest(rows, rows, 2, apart=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def studied(fake, real, training, held_out=None, **options):
    found = []
    compare(
        real, fake, PROTOCOL, ["kvd"], {"i3d": tiny_detector()}, floor=False,
        seen=lambda compared: found.append(study(compared, training, held_out, **options)),
    )  # fmt: skip
    return found[0]


def test_a_model_that_repeats_its_training_clips():
    real, held_out = TensorClips(moving_clips(12, 4)), TensorClips(moving_clips(9, 4, seed=5))
    copied = studied(TensorClips(real.videos[[3, 7, 7]]), real, real, held_out)
    assert copied.neighbours[:, 0].tolist() == [3, 7, 7] and copied.distances[:, 0].tolist() == [0, 0, 0]
    facts = copied.to_dict()
    assert facts["neighbours"]["share_closer_than_reference_5"] == 1 and copied.reference_is == "held-out real clips"
    assert json.loads(json.dumps(facts)) == facts and facts["neighbours"]["reference"]["n"] == 9
    new = studied(TensorClips(moving_clips(8, 4, seed=9)), real, real, held_out)
    assert new.distances[:, 0].min() > 0 and new.to_dict()["neighbours"]["share_closer_than_reference_5"] < 0.5


def test_a_model_that_always_makes_the_same():
    real = TensorClips(moving_clips(12, 4))
    same = studied(TensorClips(real.videos[:1].repeat(5, 1, 1, 1, 1)), real, real)
    assert same.to_dict()["diversity"]["ratio"] == 0 and "each without itself" in same.reference_is
    varied = studied(TensorClips(moving_clips(12, 4, seed=2)), real, real)
    assert 0.7 < varied.to_dict()["diversity"]["ratio"] < 1.4


def test_fewer_training_clips_are_looked_at_where_that_is_asked_for():
    real = TensorClips(moving_clips(12, 4))
    assert len(studied(real, real, real, most=5).training_clips) == 5
    assert studied(real, real, TensorClips(moving_clips(3, 2))) is None, "none is long enough"


def test_without_a_metric_of_features_there_is_none():
    clips, found = TensorClips(moving_clips(4, 4)), []
    compare(
        clips,
        clips,
        PROTOCOL,
        ["vb_temporal_flickering"],
        seen=lambda compared: found.append(study(compared, clips)),
    )
    assert found == [None]


# ---- stored clips ----------------------------------------------------------------------------------------------------


def make(numbers):
    return [Sample(torch.full((1, 2, 3, 3), number / 10 - 0.5), {"label": str(number % 2)}) for number in numbers]


def test_clips_are_made_once(tmp_path):
    store, asked, said = SampleStore(tmp_path, {"seed": 0}), [], []

    def recording(numbers):
        asked.append(list(numbers))
        return make(numbers)

    generate(store, 5, 2, recording, progress=lambda done, total: said.append((done, total)))
    assert asked == [[0, 1], [2, 3], [4]] and said == [(2, 5), (4, 5), (5, 5)]
    clips = StoredClips(store, 5)
    assert clips.labels == [0, 1, 0, 1, 0] and clips.subjects is None and clips.lengths == [2] * 5
    assert clips.clip(3, [1]).dtype == torch.uint8 and clips.clip(3, [1]).unique().tolist() == [102]
    store.path(2).unlink()
    asked.clear(), said.clear()
    generate(store, 7, 2, recording, progress=lambda done, total: said.append((done, total)))
    assert asked == [[2, 3], [4, 5], [6]] and said[0] == (2, 7)
    store.path(1).write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read") as raised:
        StoredClips(store, 5)
    assert "delete it" in raised.value.hint
    store.delete()
    assert not any(tmp_path.iterdir())


def test_other_settings_are_another_folder(tmp_path):
    one = SampleStore(tmp_path, {"model": "a"})
    assert one.folder == SampleStore(tmp_path, {"model": "a"}).folder
    others = {SampleStore(tmp_path, {"model": "b"}).folder, SampleStore(tmp_path, {"model": "a"}, "trunc").folder}
    assert len(others | {one.folder}) == 3


def test_values_are_checked_before_they_become_bytes(tmp_path):
    store = SampleStore(tmp_path, {}, "none")
    store.write(0, make([3])[0])
    assert StoredClips(store, 1).clip(0, [0]).dtype == torch.float32
    bad = torch.zeros(3, 4, 2, 2)
    bad[1, 2] = float("nan")
    with pytest.raises(UserError, match="frame 2 is not finite") as raised:
        store.write(7, Sample(bad, {}))
    assert raised.value.where == "generated clip 7" and not store.has([7])
    with pytest.raises(UserError, match="floats are in"):
        store.write(7, Sample(torch.full((3, 4, 2, 2), 200.0), {}))


def test_in_step_every_batch_is_made_and_errors_wait(tmp_path):
    store, asked = SampleStore(tmp_path, {}), []

    def broken(numbers):
        asked.append(list(numbers))
        return [Sample(torch.full((1, 1, 2, 2), float("nan")), {}) for _ in numbers]

    with pytest.raises(UserError, match="not finite"):
        generate(store, 4, 2, broken, in_step=True)
    assert asked == [[0, 1], [2, 3]], "the others would wait for this rank's part of the second"


class Model:
    """Samples what it was asked for."""

    device = torch.device("cpu")

    def __init__(self, keys=("label",)):
        self.keys, self.asked = keys, []

    def transfer_batch_to_device(self, batch, device, number):
        return batch

    on_after_batch_transfer = staticmethod(lambda batch, number: batch)

    def conditions(self, batch):
        return {key: batch[key] for key in self.keys}

    def sample(self, conditions, n, frames, seeds, options):
        self.asked.append((conditions, seeds, options))
        return torch.zeros(n, 3, frames, 2, 2)


class Data:
    """Ten clips, known by their labels."""

    def dataset(self, split):
        return range(10 if split == "train" else 4)

    def clips_at(self, places):
        numbers = [position + 100 * (split == "test") for split, position in places]
        return {"label": torch.tensor(numbers), "subject": [f"s{n}" for n in numbers], "text": ["x"] * len(numbers)}


def test_conditions_are_those_of_real_clips_each_once():
    model = Model()
    maker = ClipMaker(model, 4, 0, {"steps": 2}, Data(), "train+test")
    samples = maker(range(14))
    conditions, seeds, options = model.asked[0]
    assert sorted(conditions["label"].tolist()) == [*range(10), *range(100, 104)] and options == {"steps": 2}
    assert conditions["label"].tolist() != sorted(conditions["label"].tolist()) and len(set(seeds)) == 14
    assert [sample.facts for sample in samples[:2]] == [{"label": str(n)} for n in conditions["label"][:2].tolist()]
    maker([14])
    again, later, _ = model.asked[1]
    assert again["label"].tolist() == conditions["label"][:1].tolist() and later[0] not in seeds
    maker([3, 5])
    assert model.asked[2][1] == [seeds[3], seeds[5]], "a clip is a function of its number"
    other = ClipMaker(Model(), 4, 1, {}, Data(), "train+test")
    assert other.places != maker.places


def test_a_model_without_conditions_needs_no_data():
    model = Model(())
    assert ClipMaker(model, 4)([0, 1])[0].facts == {} and model.asked[0][0] == {}


# ---- words for detectors ---------------------------------------------------------------------------------------------


def test_words_for_detectors(tmp_path):
    assert read_choices(["random"]) == {"i3d": "random"}
    assert read_choices(["c3d=random", "i3d=a/b=c.pt"]) == {"c3d": "random", "i3d": "a/b=c.pt"}
    assert read_choices(["runs/x=1/i3d.pt"]) == {"i3d": "runs/x=1/i3d.pt"}
    file = write_classifier(tmp_path)
    opened = chosen_detectors(["i3d", "flickering"], {"i3d": file}, PROTOCOL, 4)
    assert opened["i3d"].identity.kind == "small" and set(opened) == {"i3d"}
    for given, what in ((["flow=random"], "no detector 'flow'"), (["i3d="], "names no detector")):
        with pytest.raises(UserError, match=what):
            read_choices(given)
    with pytest.raises(UserError, match="no metric of this evaluation reads c3d"):
        chosen_detectors(["i3d"], {"c3d": "random"}, PROTOCOL, 4)
    with pytest.raises(UserError, match="random weights for i3d and c3d"):
        chosen_detector("clip", "random", PROTOCOL, 4)
    with pytest.raises(UserError, match="no compact classifier"):
        chosen_detector("i3d", str(tmp_path / "classifier_x.safetensors"), PROTOCOL, 4)
