"""Class and text conditions, and the masks of classifier-free guidance."""

import copy
import math
import os
from pathlib import Path

import pytest
import torch

from vgen.conditioning import LabelEmbedding, NullEmbedding, TextEncoder, class_index, label_indices, null_mask
from vgen.conditioning.text_model import pool
from vgen.errors import UserError
from vgen.video import ClipSpec

NAMES = ("anger", "happiness", "draw x")
SPEC = ClipSpec(frames=4, height=8, width=8, class_names=NAMES, condition_keys=("label", "text"))
WIDTH = 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "anger", "happi", "##ness", "draw", "x", "a", "circle"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small random BERT with a WordPiece vocabulary, saved as a folder."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=12,
        )
    ).save_pretrained(folder)
    BertTokenizer(vocab={w: i for i, w in enumerate(WORDS)}, do_lower_case=False).save_pretrained(folder)
    return str(folder)


def encoder(bert: str, **arguments: str | int | None) -> TextEncoder:
    made = TextEncoder(model=bert, dim=WIDTH, **arguments)
    made.prepare(SPEC)
    return made


def by_hand(bert: str, tokens: list[int]) -> torch.Tensor:
    """The vector of one text from its token ids alone: no padding, no tokenizer."""
    from transformers import BertModel

    with torch.no_grad():
        states = BertModel.from_pretrained(bert).eval()(input_ids=torch.tensor([tokens])).last_hidden_state
    return states[0, 1:].mean(0)


def test_pooling_leaves_out_cls_and_padding_and_keeps_sep() -> None:
    states = torch.tensor([[[100.0], [1.0], [2.0], [6.0], [-50.0]]])
    tokens = torch.tensor([[2, 5, 6, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    assert pool(states, tokens, mask, 2, "mean_without_cls").item() == 3.0
    assert pool(states, tokens, mask, 2, "cls").item() == 100.0
    assert pool(states, tokens, mask, None, "mean_without_cls").item() == pytest.approx(109 / 4)


def test_class_names_against_bert_by_hand(bert: str) -> None:
    rows = encoder(bert)({"label": torch.tensor([1, 2, -1])})
    assert rows.shape == (3, WIDTH) and not rows.requires_grad
    torch.testing.assert_close(rows[0], by_hand(bert, [2, 6, 7, 3]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows[1], by_hand(bert, [2, 8, 9, 3]), atol=1e-5, rtol=1e-5)
    assert rows[2].abs().max() == 0


def test_captions_class_names_and_none_together(bert: str) -> None:
    rows = encoder(bert)({"text": ["draw a circle", "happiness", None, "None", "draw a circle"]})
    torch.testing.assert_close(rows[0], by_hand(bert, [2, 8, 10, 11, 3]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows[1], by_hand(bert, [2, 6, 7, 3]), atol=1e-5, rtol=1e-5)
    assert rows[2:4].abs().max() == 0 and torch.equal(rows[0], rows[4])


def test_long_captions_are_cut(bert: str) -> None:
    rows = encoder(bert, max_length=4)({"text": ["draw a circle x x x"]})
    torch.testing.assert_close(rows[0], by_hand(bert, [2, 8, 10, 3]), atol=1e-5, rtol=1e-5)
    assert encoder(bert)({"text": ["x " * 50]}).isfinite().all()  # beyond the model's own limit


def test_checkpoint_needs_no_text_model(bert: str) -> None:
    first = encoder(bert)
    first.materialize()
    assert set(first.state_dict()) == {"table", "table_filled"} and not list(first.parameters())
    for prepared in (True, False):
        second = TextEncoder(model="absent/model", dim=WIDTH)
        if prepared:
            second.prepare(SPEC)
        second.load_state_dict(first.state_dict())
        second.class_names = NAMES
        assert torch.equal(second({"label": ["happiness", "anger"]}), first({"label": torch.tensor([1, 0])}))
    copied = copy.deepcopy(first)
    assert torch.equal(copied.table, first.table) and not copied._text_model and first._text_model


def test_empty_table_in_a_checkpoint_is_filled_later(bert: str) -> None:
    second = encoder(bert)
    second.load_state_dict(encoder(bert).state_dict())
    assert second({"label": torch.tensor([0])}).abs().max() > 0


def test_disk_cache(bert: str, tmp_path: Path) -> None:
    first = encoder(bert, cache_dir=str(tmp_path))
    first.materialize()
    assert len(list(tmp_path.iterdir())) == 1
    second = encoder(bert, cache_dir=str(tmp_path))
    second.materialize()
    assert torch.equal(first.table, second.table) and not second._text_model
    other = encoder(bert, cache_dir=str(tmp_path), pooling="cls")
    other.materialize()
    assert not torch.equal(first.table, other.table)
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    third = encoder(bert, cache_dir=str(tmp_path))
    third.materialize()
    assert torch.equal(first.table, third.table)


def test_missing_text_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vgen.conditioning.text_model._contact_hub", unreachable)
    missing = TextEncoder(model="absent/model")
    missing.prepare(SPEC)
    with pytest.raises(UserError) as caught:
        missing.materialize()
    assert "absent/model" in caught.value.what and "no route" in caught.value.what
    assert "cache" in str(caught.value.where) and "hf download absent/model" in str(caught.value.hint)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        missing({"text": ["a caption"]})

    (tmp_path / "config.json").write_text("{}")
    damaged = TextEncoder(model=str(tmp_path))
    damaged.prepare(SPEC)
    with pytest.raises(UserError, match="folder") as caught:
        damaged.materialize()
    assert caught.value.where == os.path.abspath(tmp_path)


def test_wrong_width(bert: str) -> None:
    wrong = TextEncoder(model=bert)
    wrong.prepare(SPEC)
    with pytest.raises(UserError, match="width 16, not 768"):
        wrong.materialize()


def test_unknown_class(bert: str) -> None:
    with pytest.raises(UserError) as caught:
        encoder(bert)({"label": ["hapiness"]})
    assert caught.value.hint == "did you mean 'happiness'?"
    with pytest.raises(UserError, match="not a class"):
        class_index("zzz", NAMES)


def test_label_indices() -> None:
    assert label_indices("happiness", NAMES, n=3).tolist() == [1, 1, 1]
    assert label_indices(["anger", None, "None", 2, -1], NAMES).tolist() == [0, -1, -1, 2, -1]
    assert label_indices(None, NAMES, n=2).tolist() == [-1, -1]
    with pytest.raises(UserError, match="2 labels for 3 clips"):
        label_indices([0, 1], NAMES, n=3)
    with pytest.raises(UserError, match="out of range"):
        label_indices(3, NAMES)


def test_learned_labels() -> None:
    torch.manual_seed(0)
    made = LabelEmbedding(64)
    made.prepare(SPEC)
    assert made.weight is not None and made.weight.shape == (3, 64)
    assert made.weight.std().item() == pytest.approx(1, abs=0.2)
    rows = made({"label": torch.tensor([2, -1])})
    assert torch.equal(rows[0], made.weight[2]) and rows[1].abs().max() == 0
    rows.sum().backward()
    assert made.weight.grad is not None and made.weight.grad[2].abs().min() == 1
    assert torch.equal(made({"text": ["draw x", "None"]}), rows)


def test_one_hot_labels() -> None:
    made = LabelEmbedding(4, kind="one_hot")
    made.prepare(SPEC)
    assert made({"label": ["happiness"]}).tolist() == [[0, 2, 0, 0]] and not made.state_dict()
    assert made({"label": [1]}).norm() == math.sqrt(4)
    with pytest.raises(UserError, match="does not fit"):
        LabelEmbedding(2, kind="one_hot").prepare(SPEC)


def test_labels_that_contradict_the_data() -> None:
    with pytest.raises(UserError, match="num_classes is 5"):
        LabelEmbedding(8, num_classes=5).prepare(SPEC)
    with pytest.raises(UserError, match="has none"):
        LabelEmbedding(8).prepare(ClipSpec(frames=1, height=8, width=8))


def test_null_mask() -> None:
    assert null_mask({"text": ["a", None, "None"]}, 3).tolist() == [False, True, True]
    assert null_mask({"label": torch.tensor([0, -1])}, 2).tolist() == [False, True]
    assert null_mask({"label": ["anger", "None"]}, 2).tolist() == [False, True]
    assert null_mask({}, 2).tolist() == [True, True]
    labels = {"label": torch.zeros(20_000, dtype=torch.int64)}
    masks = [null_mask(labels, 20_000, 0.1, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*masks) and masks[0].float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert null_mask(labels, 20_000, 1.0).all()
    with pytest.raises(UserError):
        null_mask(labels, 20_000, 1.5)


def test_null_embedding() -> None:
    rows, mask = torch.ones(2, 3), torch.tensor([True, False])
    assert NullEmbedding(3)(rows, mask).tolist() == [[0, 0, 0], [1, 1, 1]]
    learned = NullEmbedding(3, "learned")
    assert torch.equal(learned(rows, mask)[0], learned.null[0]) and set(learned.state_dict()) == {"null"}
    assert not NullEmbedding(3).state_dict()
