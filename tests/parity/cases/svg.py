"""Cases of SVG: encoders and decoders, roll-outs under both statistics, the training loss, the KL terms."""

import torch
from torch import Tensor

from parity.registry import Vector, case
from vgen.diffusion.variational import normal_kl
from vgen.models.svg import weights
from vgen.models.svg.module import SVG, losses
from vgen.models.svg.networks import Decoder, Encoder, SVGNetwork
from vgen.video import ClipSpec


def _backbone(vector: Vector) -> dict[str, Tensor]:
    arguments, inputs = vector.constructor, vector.tensors("in")
    kind, side = vector.target.split("_")
    sizes = (kind, int(side), arguments["nc"], 64 // arguments.get("width_div", 1), arguments["dim"])
    networks = torch.nn.ModuleDict({"encoder": Encoder(*sizes), "decoder": Decoder(*sizes)})
    weights.load(networks, vector.tensors("param"), vector.name)
    networks.eval()
    vectors, features = networks["encoder"](inputs["x"][:, None])
    frames = networks["decoder"](vectors, features)
    return {"vec": vectors[:, 0], "skip_last": features[-1][:, 0], "recon": frames[:, 0]}


for _name in ("dcgan_64", "dcgan_128", "vgg_64", "vgg_128"):
    case("svg", _name)(torch.no_grad()(_backbone))


@case("svg", "kl_formulas")
def kl_formulas(vector):
    x = vector.tensors("in")
    mean, log_variance, zero = x["mu1"], x["logvar1"], torch.zeros_like(x["mu1"])
    return {
        "kl_lp": normal_kl(mean, log_variance, x["mu2"], x["logvar2"]).sum() / len(mean),
        "kl_fp": normal_kl(mean, log_variance, zero, zero).sum() / len(mean),
    }


def _whole(vector: Vector) -> dict[str, Tensor]:
    arguments, inputs = vector.constructor, vector.tensors("in")
    network = SVGNetwork(
        arguments["file"].partition("_")[0],
        {"fp": "fixed", "lp": "learned"}[arguments["kind"]],
        arguments["g_dim"],
        arguments["z_dim"],
        64 // arguments.get("div", 1),
        arguments["rnn"],
        arguments["pl"],
        arguments["ql"],
        arguments["rl"],
    )
    video = inputs["x"].transpose(0, 1)  # clips first
    past = arguments["n_past"]
    spec = ClipSpec(video.shape[1], video.shape[-1], video.shape[-1], arguments["nc"])
    module = SVG(spec, network, past, beta=arguments["beta"], last_frame_skip=arguments["last_frame_skip"])
    weights.load(network, vector.tensors("param"), vector.name)
    posterior, prior = (inputs[name].transpose(0, 1) for name in ("eps_post", "eps_prior"))
    out = {}
    network.eval()
    with torch.no_grad():
        vectors, features = network.encoder(video[:, :1])
        out |= {"enc_eval.vec": vectors[:, 0], "dec_eval": network.decoder(vectors, features)[:, 0]}
        out |= {f"enc_eval.skip{level}": found[:1, 0] for level, found in enumerate(features)}
        for name, statistics in (("gen_bn_train", "batch"), ("gen_bn_eval", "running")):
            with network.using(statistics):
                given = None if network.prior is None else posterior[:, : past - 1]
                state = network.begin(video[:, :past], given, module.shared_from)
                frames, means = [], []
                for step in range(past - 1, prior.shape[1]):
                    frame, state = network.step(state, prior[:, step])
                    frames.append(frame)
                    means.append(state.get("prior_mean"))
            out[name] = torch.stack(frames)
            if network.prior is not None:
                out[f"{name}.prior_mu"] = torch.stack(means)
    network.train()
    unrolled = network(video, posterior, module.shared_from)
    mse, kld = losses(unrolled, video)
    loss = mse.sum() + arguments["beta"] * kld.sum()
    loss.backward()
    out |= {"train.mse": mse.sum(), "train.kld": kld.sum(), "train.loss": loss}
    out |= {"train.mse_per_step": mse, "train.kld_per_step": kld}
    for name, part in network.named_children():
        gradients = [parameter.grad.flatten() for parameter in part.parameters()]
        out[f"train.grad_norm.{name}"] = torch.cat(gradients).norm()
    out["train.running_mean_after.encoder"] = network.encoder.levels[0][0].norm.running_mean
    return out


for _kind in ("fp", "lp"):
    for _file in ("dcgan64", "vgg64", "dcgan128", "vgg128"):
        case("svg", f"svg_{_kind}_{_file}")(_whole)
