import copy

import torch

from vgen.nn.quantize import EMACodebook


def test_it_begins_with_latents_of_the_first_batch_and_never_again():
    torch.manual_seed(0)
    codebook, z = EMACodebook(8, 3, restart_below=0).train(), torch.randn(2, 3, 4, 4)
    found = codebook(z)
    flat = z.movedim(1, -1).reshape(-1, 3)
    assert bool(codebook.started) and found.codes.shape == (2, 4, 4)
    # after one step of decay 0.99, codes are still next to the latents that they began as
    assert torch.cdist(codebook.embeddings, flat).min(1).values.max() < 0.2
    resumed = EMACodebook(8, 3, restart_below=0).train()
    resumed.load_state_dict(copy.deepcopy(codebook.state_dict()))
    codebook(z + 5), resumed(z + 5)
    assert torch.equal(codebook.embeddings, resumed.embeddings), "a training that goes on does not begin again"
    assert codebook.embeddings.mean() < 1


def test_too_few_latents_are_repeated():
    codebook = EMACodebook(50, 3).train()
    codebook(torch.randn(1, 3, 2, 2))
    assert codebook.embeddings.shape == (50, 3) and len(codebook.embeddings.unique(dim=0)) == 50


def test_unused_codes_are_put_where_latents_are():
    torch.manual_seed(0)
    codebook, z = EMACodebook(4, 2).train(), torch.randn(8, 2, 8) * 0.1
    codebook(z)
    with torch.no_grad():
        codebook.embeddings[0], codebook.counts[0] = 100.0, 0.2
        codebook.sums[0] = 20.0
    codebook(z)
    assert codebook.embeddings[0].abs().max() < 1 and codebook.counts[0] < 1 and codebook.sums[0, 0] > 10


def test_gradients_pass_and_evaluation_changes_nothing():
    codebook, z = EMACodebook(6, 4).train(), torch.randn(2, 4, 5, requires_grad=True)
    found = codebook(z)
    found.latent.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))
    assert 1 <= float(found.perplexity) <= 6.001
    codebook.eval()
    before = copy.deepcopy(codebook.state_dict())
    again = codebook(z)
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())
    torch.testing.assert_close(codebook.lookup(again.codes).movedim(-1, 1), again.latent.detach())
    distances = torch.cdist(z.detach().movedim(1, -1).reshape(-1, 4), codebook.embeddings)
    assert torch.equal(again.codes.flatten(), distances.argmin(1))
