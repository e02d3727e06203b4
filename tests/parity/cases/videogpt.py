"""Cases of VideoGPT: the VQ-VAE, a step of its codebook, priors with both attentions and all conditions."""

import torch
import torch.nn.functional as F

from parity.registry import case
from vgen.models.videogpt import weights
from vgen.models.videogpt.networks import VQVAE, CodeTransformer, cross_entropy, strided_layout
from vgen.models.videogpt.vqvae_module import COMMITMENT, DATA_VARIANCE
from vgen.nn.quantize import EMACodebook


def build_vqvae(arguments: dict, state: dict, name: str) -> VQVAE:
    ours = {"hidden": arguments.get("n_hiddens", 240), "embedding_dim": arguments.get("embedding_dim", 256)}
    ours |= {"codes": arguments.get("n_codes", 2048), "res_layers": arguments.get("n_res_layers", 4)}
    network = VQVAE(**ours, downsample=tuple(arguments.get("downsample", (4, 4, 4))))
    weights.load_vqvae(network, weights.vqvae_state(state), name)
    return network.eval()


@case("videogpt", "vqvae")
@torch.no_grad()
def vqvae(vector):
    network = build_vqvae(vector.constructor, vector.tensors("param"), vector.name)
    x = vector.tensors("in")["x"]
    made, quantised = network(x)
    codes = network.codes_of(x)
    reconstruction, commitment = F.mse_loss(made, x) / DATA_VARIANCE, COMMITMENT * quantised.commitment
    return {
        "enc_feat": network.features(x),
        "z": network.latent(x),
        "codes": codes,
        "embeddings": network.codebook.lookup(codes).movedim(-1, 1),
        "recon": made,
        "recon_from_codes": network.from_codes(codes),
        "recon_loss": reconstruction,
        "commitment_loss": commitment,
        "loss": reconstruction + commitment,
        "perplexity": quantised.perplexity,
    }


@case("videogpt", "codebook_ema")
@torch.no_grad()
def codebook_ema(vector):
    arguments, inputs = vector.constructor, vector.tensors("in")
    codebook = EMACodebook(arguments["n_codes"], arguments["embedding_dim"]).train()
    before = {name: inputs[f"before.{official}"] for name, official in NAMES.items()}
    codebook.load_state_dict(before | {"started": torch.tensor(True)})
    quantised = codebook(inputs["z"], order=inputs["perm"])
    out = {f"after.{official}": getattr(codebook, name) for name, official in NAMES.items()}
    out |= {"codes": quantised.codes, "embeddings_st": quantised.latent, "perplexity": quantised.perplexity}
    return out | {"commitment_loss": COMMITMENT * quantised.commitment}


NAMES = {"embeddings": "embeddings", "counts": "N", "sums": "z_avg"}


def _prior(vector):
    arguments, inputs, state = vector.constructor, vector.tensors("in"), vector.tensors("param")
    first = arguments["vqvae_args"]
    vqvae = build_vqvae(first, state, vector.name)
    side = arguments["resolution"]
    network = CodeTransformer(
        arguments["hidden_dim"],
        arguments["heads"],
        arguments["layers"],
        attention=arguments.get("attn_type", "full"),
        class_conditional=bool(arguments.get("class_cond")),
        condition_frames=arguments.get("n_cond_frames", 0),
        condition_widths=tuple(vector.sidecar.get("resnet_widths", (64, 128, 256, 240))),
    )
    shape = vqvae.grid(first["sequence_length"], first["resolution"], first["resolution"])
    codebook = vqvae.codebook.embeddings.shape
    network.prepare(shape, *codebook, arguments.get("class_cond_dim") or 0, 3, (side, side))
    weights.load_prior(network, weights.prior_state(state), vector.name)
    network.eval()
    codes, label = inputs["codes"], inputs.get("label")
    frames = inputs["video"][:, :, : network.condition_frames] if network.condition_frames else None
    logits = network(vqvae.codebook.lookup(codes), label, frames)
    decoding, greedy = network.steps(len(codes), label, frames), []
    for each in decoding:
        greedy.append(each.argmax(-1))
        decoding.put(vqvae.codebook.lookup(greedy[-1]))
    found = torch.stack(greedy, 1).view(codes.shape)
    out = {"logits": logits, "loss": cross_entropy(logits, codes), "greedy_codes": found}
    out["greedy_video"] = vqvae.from_codes(found).clamp(-0.5, 0.5) + 0.5
    if frames is not None:
        grid = (network.condition_frames, side // 4, side // 4)
        out["frame_cond"] = network.features(frames).unflatten(1, grid)
    return out


for _name in ("gpt", "gpt_class_cond", "gpt_frame_cond", "gpt_uncond"):
    case("videogpt", _name)(torch.no_grad()(_prior))


@case("videogpt", "sparse_attention_stack")
@torch.no_grad()
def sparse_attention_stack(vector):
    arguments, state = vector.constructor, vector.tensors("param")
    shape, dim = tuple(arguments["shape"]), arguments["embd_dim"]
    block, local = arguments.get("block", 32), arguments.get("num_local_blocks", 4)
    network = CodeTransformer(
        dim,
        arguments["n_head"],
        arguments["n_layer"],
        attention=arguments["attn_type"],
        block=block,
        local_blocks=local,
    )
    network.prepare(shape, 2, dim)
    around = {k: v for k, v in network.state_dict().items() if k.partition(".")[0] in ("embed", "norm", "logits")}
    network.load_state_dict(weights.PRIOR_KEYS.convert(state)[0] | around)
    network.eval()
    out = network.hidden(vector.tensors("in")["x"].flatten(1, 3)).unflatten(1, shape)
    layout = strided_layout(shape, block, local).float().expand(arguments["n_head"], -1, -1)
    return {"out": out, "block_layout": layout}


@case("videogpt", "sparse_layouts")
def sparse_layouts(vector):
    names = vector.tensors("out")
    return {name: strided_layout(tuple(map(int, name.partition(".")[2].split("x")))).to(torch.uint8) for name in names}
