"""Cases of score-based networks: score SDE's three, and EDM's two behind their preconditioning."""

from typing import Any

import torch

from parity.registry import Vector, case
from vgen.diffusion.preconditioning import Preconditioning
from vgen.models.score import weights
from vgen.models.score.networks import ADM, Preconditioned, ScoreNetwork, ScoreUNet


def score_sde(vector: Vector) -> ScoreNetwork:
    """Ours for score SDE's configuration of a model."""
    model, shared = vector.sidecar["model"], {}
    centered, size = vector.sidecar["data_centered"], vector.sidecar["image_size"]
    shared["model_channels"], shared["channel_mult"] = model["nf"], tuple(model["ch_mult"])
    shared["num_blocks"], shared["attn_resolutions"] = model["num_res_blocks"], tuple(model["attn_resolutions"])
    shared |= {"resample_with_conv": model["resamp_with_conv"], "activation": model["nonlinearity"]}
    shared["channels"] = int(vector.tensors("in")["x"].shape[1])
    if model["name"] == "ddpm":
        embedding = "positional" if model["conditional"] else "none"
        own: dict[str, Any] = {"block": "ddpm", "taps": None, "encoder": "standard", "per_group": 1}
        own["skip_rescale"] = False
    else:
        embedding = model["embedding_type"] if model["conditional"] else "none"
        own = {
            "block": "biggan" if model["resblock_type"] == "biggan" else "ddpm",
            "taps": tuple(model["fir_kernel"]) if model["fir"] else None,
            "encoder": {"none": "standard", "input_skip": "skip"}.get(model["progressive_input"], "residual"),
            "decoder": {"none": "standard", "output_skip": "skip"}.get(model["progressive"], "residual"),
            "combine": model["progressive_combine"],
            "skip_rescale": model["skip_rescale"],
            "fourier_scale": model["fourier_scale"],
        }
    unet = ScoreUNet(size, noise_embedding=embedding, **shared, **own)
    levels = {"sigma_min": model["sigma_min"], "sigma_max": model["sigma_max"], "num_scales": model["num_scales"]}
    network = ScoreNetwork(unet, centered, model["scale_by_sigma"], **levels)
    weights.load_score_sde(network, vector.tensors("param"), vector.name)
    return network.eval()


@torch.no_grad()
def score_network(vector):
    inputs = vector.tensors("in")
    network = score_sde(vector)
    torch.testing.assert_close(network.sigmas, vector.tensors("param")["sigmas"].float(), rtol=1e-5, atol=0)
    return {"y": network(inputs["x"], inputs["t"])}


for _target in ("score_ncsnpp_ve", "score_ddpmpp_vp", "score_ddpm_vp"):
    case("diffusion", _target)(score_network)

_OURS = {"model_channels", "channel_mult", "num_blocks", "attn_resolutions", "dropout", "augment_dim", "label_dropout"}


def edm(vector: Vector) -> Preconditioned:
    """Ours for the arguments of EDM's preconditioned model."""
    arguments = vector.constructor
    size, channels = arguments["img_resolution"], arguments["img_channels"]
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items() if key in _OURS}
    given["label_dim"] = arguments.get("label_dim", 0)
    assert arguments.get("channel_mult_emb", 4) == 4
    if arguments.get("model_type", "DhariwalUNet") == "DhariwalUNet":
        network: ScoreUNet | ADM = ADM(size, channels, **given)
    else:
        network = ScoreUNet(
            size,
            channels,
            noise_embedding=arguments.get("embedding_type", "positional"),
            noise_channels=arguments.get("channel_mult_noise", 1),
            encoder=arguments.get("encoder_type", "standard"),
            decoder=arguments.get("decoder_type", "standard"),
            taps=tuple(arguments.get("resample_filter", (1, 1))),
            **({"channel_mult": (1, 2, 2, 2), "num_blocks": 4, "attn_resolutions": (16,)} | given),
        )
    model = Preconditioned(network, Preconditioning("edm", sigma_data=arguments.get("sigma_data", 0.5)))
    weights.load_edm(model, vector.tensors("param"), vector.name)
    return model.eval()


@torch.no_grad()
def edm_network(vector):
    inputs, model = vector.tensors("in"), edm(vector)
    labels = inputs["class_labels"] if inputs["class_labels"].shape[1] else None
    coefficients = model.preconditioning.coefficients(inputs["sigma"].view(-1, 1, 1, 1))
    raw = model.network(coefficients[2] * inputs["x"], coefficients[3].flatten(), labels)
    return {"denoised": model(inputs["x"], inputs["sigma"], labels), "raw_model": raw}


for _target in ("edm_ddpmpp", "edm_ncsnpp", "edm_adm"):
    case("diffusion", _target)(edm_network)
