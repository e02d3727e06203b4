import pytest
import torch

from tests.tiny_videogpt import SPEC, batch, videogpt, vqvae
from vgen.errors import UserError
from vgen.models.videogpt import VQVAE, CodeTransformer, VideoGPT, VideoVQVAE
from vgen.training import CodeSampling
from vgen.video import ClipSpec, Reconstructs, Samples

KINDS = [{}, {"class_conditional": True}, {"condition_frames": 1}, {"condition_frames": 2}, {"attention": "sparse"}]


def test_losses_reach_every_weight():
    first = vqvae().train()
    terms = first.loss(batch())
    assert set(terms) == {"loss", "reconstruction", "commitment", "perplexity", "psnr"}
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["commitment"])
    terms["loss"].backward()
    assert all(value.grad is not None for value in first.parameters())
    for kind in KINDS:
        model = videogpt(**kind).train()
        terms = model.loss(batch())
        torch.testing.assert_close(terms["bits"], terms["loss"].detach() / 0.6931472)
        terms["loss"].backward()
        trained = dict(model.prior.named_parameters())
        assert all(value.grad is not None for value in trained.values())
        assert not any(p.requires_grad for p in model.codec.parameters())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_clip_depends_on_its_seed_and_conditions_alone(kind):
    model = videogpt(**kind)
    conditions = model.conditions(batch())
    whole = model.sample(conditions, 3, seeds=[5, 6, 7])
    alone = model.sample({k: v[2:] for k, v in conditions.items()}, 1, seeds=[7])
    assert whole.shape == (3, 3, 4, 8, 8) and whole.abs().max() <= 1
    torch.testing.assert_close(alone[0], whole[2])
    other = model.sample({k: v[2:] for k, v in conditions.items()}, 1, seeds=[8])
    assert not torch.equal(other, alone)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}, {"temperature": 0}], ids=str)
def test_cached_and_recomputed_draw_the_same_codes(kind, options):
    model = videogpt(**kind).eval()
    conditions = model.conditions(batch())
    found = [
        model.draw_codes(conditions, 3, [1, 2, 3], CodeSampling(cached=cached, **options)) for cached in (True, False)
    ]
    assert torch.equal(*found)
    assert len(found[0].unique()) > 1 or not options.get("temperature", 1)


def test_options():
    model = videogpt().eval()
    plain, cold = (model.draw_codes({}, 4, list(range(4)), CodeSampling(t)) for t in (1.0, 0.0))
    assert (cold == cold[:1]).all() and not (plain == plain[:1]).all()
    one = model.draw_codes({}, 4, list(range(4)), CodeSampling(top_k=1))
    assert torch.equal(one, cold)
    with pytest.raises(UserError, match="top_q"):
        model.sample(n=1, options={"top_q": 3})
    with pytest.raises(UserError, match="at most 4"):
        model.sample(n=1, frames=5)
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}):
        with pytest.raises(UserError):
            CodeSampling(**wrong)


def test_conditions_are_what_the_prior_takes():
    with pytest.raises(UserError, match="takes label"):
        videogpt(class_conditional=True).sample(n=1)
    with pytest.raises(UserError, match="takes no condition"):
        videogpt().sample(n=1, image=torch.zeros(3, 8, 8))
    named = videogpt(class_conditional=True).sample(n=2, label="up")
    assert named.shape[0] == 2
    clip = torch.rand(3, 4, 8, 8) * 2 - 1
    given = videogpt(condition_frames=2)
    torch.testing.assert_close(given.sample(video=clip), given.sample({"video": clip[None, :, -2:]}))
    plain = ClipSpec(4, 8, 8)
    with pytest.raises(UserError, match="no classes"):
        VideoGPT(plain, CodeTransformer(24, 2, 1, class_conditional=True), vqvae())
    with pytest.raises(UserError, match="frames are given"):
        VideoGPT(SPEC, CodeTransformer(24, 2, 1, condition_frames=4), vqvae())


def test_protocols_and_the_first_stage_as_codec():
    first, model = vqvae().eval(), videogpt()
    assert isinstance(model, Samples) and isinstance(model, Reconstructs)
    assert isinstance(first, Reconstructs) and not isinstance(first, Samples)
    video = batch()["video"]
    codes = first.encode(video)["codes"]
    assert codes.dtype == torch.int64 and codes.shape[1:] == first.latent_spec(SPEC)["codes"] == (2, 4, 4)
    torch.testing.assert_close(first.decode({"codes": codes}), first.reconstruct({"video": video}))
    with pytest.raises(UserError, match="channels"):
        VideoVQVAE(ClipSpec(4, 8, 8, 1), VQVAE(8, 6, 12, 1, (2, 2, 2)))


def test_cached_codes_are_those_of_the_batch(tmp_path):
    from vgen.codecs import LatentCache

    model, given = videogpt().train(), batch(4)
    cache = LatentCache(tmp_path / "codes.safetensors", {})
    cache.build([given], model._encoded)
    assert cache.open()
    model._cache = cache
    chosen = {"video": torch.zeros(2, 3, 4, 8, 8), "path": ["3", "1"]}
    found = model.codes_of(chosen)
    assert found.dtype == torch.int64
    assert torch.equal(found, model.codec.network.encode(given["video"])["codes"][[3, 1]])
    assert cache(["0"], torch.device("cpu"))["codes"].dtype == torch.int16


@pytest.mark.slow
def test_it_learns_two_clips():
    """The first stage reconstructs better than the mean frame, and the prior knows both clips by heart."""
    torch.manual_seed(0)
    times = torch.arange(4)[:, None, None]
    grid = torch.linspace(0, 3.1, 8)
    clips = torch.stack([torch.sin(grid[:, None] + sign * grid + sign * times) for sign in (1, -1)])
    video = clips[:, None].expand(-1, 3, -1, -1, -1).contiguous()
    first = VideoVQVAE(SPEC, VQVAE(16, 8, 32, 1, (2, 2, 2))).train()
    optimizer = torch.optim.Adam(first.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        first.loss({"video": video})["loss"].backward()
        optimizer.step()
    first.eval()
    made = first.reconstruct({"video": video})
    mean = video.mean(2, keepdim=True)
    assert (made - video).square().mean() < 0.2 * (mean - video).square().mean()
    model = VideoGPT(SPEC, CodeTransformer(24, 2, 2, dropout=0.0, attention_dropout=0.0), first).train()
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model.loss({"video": video})["loss"]
        loss.backward()
        optimizer.step()
    # one bit tells the clips apart; all other codes follow
    assert float(loss) < 0.1
    sampled = model.sample(n=8)
    nearest = torch.cdist(sampled.flatten(1), made.flatten(1)).min(1)
    assert nearest.values.median() < 1 and len(nearest.indices.unique()) == 2


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_all_of_it_in_bf16(kind):
    """precision: bf16-true; the codebook stays fp32."""
    model = videogpt(**kind).to(torch.bfloat16)
    given = batch() | {"video": batch()["video"].bfloat16()}
    model.train().loss(given)["loss"].backward()
    assert model.sample(model.conditions(given), 3).isfinite().all()
    first = vqvae().to(torch.bfloat16)
    first.train().loss(given)["loss"].backward()
    assert first.network.codebook.embeddings.dtype == torch.float32
