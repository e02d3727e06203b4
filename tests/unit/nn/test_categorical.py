import torch

from vgen.nn.categorical import draw, keep_likely


def test_top_k():
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    kept = keep_likely(logits, top_k=2)
    assert kept.isfinite().tolist() == [[True, False, True, False]] and torch.equal(keep_likely(logits, 9), logits)


def test_top_p():
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log()
    for top_p, expected in ((0.4, 1), (0.6, 2), (0.85, 3), (1.0, 4)):
        assert int(keep_likely(logits, top_p=top_p).isfinite().sum()) == expected
    assert keep_likely(logits, top_p=0.6).isfinite().tolist() == [[True, False, True, False]]


def test_draws_have_the_distribution():
    logits = torch.tensor([0.1, 0.0, 0.6, 0.3]).log().expand(4000, -1)
    uniform = (torch.arange(4000) + 0.5) / 4000
    share = torch.bincount(draw(logits, uniform), minlength=4) / 4000
    torch.testing.assert_close(share, torch.tensor([0.1, 0.0, 0.6, 0.3]), atol=1e-3, rtol=0)
    assert draw(logits[:2], torch.tensor([0.0, 0.99999994])).tolist() == [0, 3]
