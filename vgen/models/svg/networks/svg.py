"""SVG: all five networks together, for clips whose frames are known and frame by frame (Denton & Fergus 2018)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vgen.configurable import Configurable
from vgen.errors import UserError
from vgen.models.svg.networks.backbones import Decoder, Encoder, Kind
from vgen.models.svg.networks.layers import Calls, FrameNorm, Statistics
from vgen.models.svg.networks.recurrent import DeterministicLSTM, GaussianLSTM
from vgen.models.svg.networks.recurrent import State as LSTMState
from vgen.video import ClipSpec

Prior = Literal["fixed", "learned", "none"]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Unrolled:
    """What the networks make of a clip of T frames whose frames are all given: one step for each but the first.

    Args:
        frames: Predictions of frames 1 to T-1, (B, T-1, C, H, W) in (0, 1).
        mean: Of the posterior, (B, T-1, z).
        log_variance: Of the posterior.
        prior_mean: Of the prior; zeros where it is fixed.
        prior_log_variance: Of the prior.
    """

    frames: Tensor
    mean: Tensor
    log_variance: Tensor
    prior_mean: Tensor
    prior_log_variance: Tensor


class SVGNetwork(Configurable, nn.Module):
    """Stochastic video generation with a fixed (SVG-FP) or a learned prior (SVG-LP).

    A frame is predicted from the one before, x_{t-1}, and a latent z_t: encoder, LSTM over [h_{t-1}, z_t], decoder. In
    training z_t is drawn from q(z_t | x_1..x_t), in prediction from p(z_t), which is standard normal or a learned
    p(z_t | x_1..x_{t-1}). Features of the encoder go around the LSTM to the decoder; from some frame on they are those
    of the last past frame, so that what moved in front of a background stays filled in.

    Encoder and decoder depend on the size of the clips: `prepare` makes them.

    Args:
        backbone: Encoder and decoder: DCGAN's or VGG's.
        prior: Fixed (FP) or learned (LP); none: no latent at all, the deterministic model that both are compared with.
        frame_dim: Size of a frame's vector, g in the code.
        latent_dim: Size of the latent, z.
        width: Channels of the encoder's first level; 64 as published.
        rnn_size: Size of all LSTMs.
        predictor_layers: Layers of the LSTM that predicts.
        posterior_layers: Layers of the LSTM of q.
        prior_layers: Layers of the LSTM of p.
        normalise: What BatchNorm's statistics in training are of: all clips at one `frame`, as published, under which
            the running statistics fit no frame well; or all frames of the `clip`s, under which they fit.
    """

    encoder: Encoder
    decoder: Decoder

    def __init__(
        self,
        backbone: Kind = "dcgan",
        prior: Prior = "learned",
        frame_dim: int = 128,
        latent_dim: int = 10,
        width: int = 64,
        rnn_size: int = 256,
        predictor_layers: int = 2,
        posterior_layers: int = 1,
        prior_layers: int = 1,
        normalise: Literal["frame", "clip"] = "frame",
    ) -> None:
        super().__init__()
        self.normalise: Literal["frame", "clip"] = normalise
        self.latent_dim = 0 if prior == "none" else latent_dim
        self.backbone, self.frame_dim, self.width = backbone, frame_dim, width
        self.frame_predictor = DeterministicLSTM(frame_dim + self.latent_dim, frame_dim, rnn_size, predictor_layers)
        self.posterior = None if prior == "none" else GaussianLSTM(frame_dim, latent_dim, rnn_size, posterior_layers)
        self.prior = GaussianLSTM(frame_dim, latent_dim, rnn_size, prior_layers) if prior == "learned" else None

    def prepare(self, clip_spec: ClipSpec) -> None:
        """Makes encoder and decoder for such clips; called once, before weights are loaded.

        Raises:
            UserError: Frames are not square, or their side is no power of two.
        """
        if clip_spec.height != clip_spec.width:
            what = f"SVG's frames are square, not {clip_spec.height}x{clip_spec.width}"
            raise UserError(what, "data.init_args.size")
        sizes = (self.backbone, clip_spec.height, clip_spec.channels, self.width, self.frame_dim)
        # SVG-LP's release encodes a frame as target and again as input; SVG-FP's encodes each once.
        calls: Calls = "once" if self.prior is None else "twice"
        together = self.normalise == "clip"
        self.encoder = Encoder(*sizes, "together" if together else calls)
        self.decoder = Decoder(*sizes, "together" if together else "once")

    @contextmanager
    def using(self, statistics: Statistics) -> Iterator[None]:
        """In evaluation, normalises by the running statistics, or frame by frame by those of the batch.

        The release samples SVG-LP by the statistics of the batch of samples, and SVG-FP by the running ones. By those
        of the batch, a clip depends on the others that are made with it.
        """
        norms = [module for module in self.modules() if isinstance(module, FrameNorm)]
        for norm in norms:
            norm.statistics = statistics
        try:
            yield
        finally:
            for norm in norms:
                norm.statistics = "running"

    # Training ---------------------------------------------------------------------------------------------------------

    def forward(self, video: Tensor, noise: Tensor, shared_from: int | None) -> Unrolled:
        """Predicts each frame from the real one before.

        All inputs of the LSTMs are known, so that every network runs once over the whole clip.

        Args:
            video: (B, T, C, H, W) in [0, 1].
            noise: Standard normal, of the posterior's draws, (B, T-1, z).
            shared_from: Number of the frame whose features the decoder sees from then on; None: those of the frame
                before, always.
        """
        vectors, features = self.encoder(video)
        before, latent = vectors[:, :-1], vectors[:, 1:, :0]
        mean = log_variance = latent
        if self.posterior is not None:
            mean, log_variance = self.posterior(vectors[:, 1:])
            latent = drawn(mean, log_variance, noise)
        prior = (torch.zeros_like(mean), torch.zeros_like(mean)) if self.prior is None else self.prior(before)
        predicted = self.frame_predictor(torch.cat((before, latent), dim=2))
        frames = self.decoder(predicted, [_shared(level, shared_from) for level in features])
        return Unrolled(frames, mean, log_variance, *prior)

    # Prediction, in the order of the release: under statistics of few clips, rounding is amplified a hundredfold ------

    def begin(self, past: Tensor, noise: Tensor | None, shared_from: int | None) -> State:
        """Reads the past frames.

        Args:
            past: (B, P, C, H, W) in [0, 1], P at least 1 (2 where features are shared).
            noise: Of the posterior's draws, (B, P-1, z); None: its means, as SVG-FP's release takes them.
            shared_from: See `forward`; less than P - 1.

        Returns:
            The state before the first prediction: the last frame, what the LSTMs hold, the features.
        """
        inner: dict[str, LSTMState] = {}
        state = {"frame": past[:, -1]}
        vector, features = self._encode(past[:, 0])
        for t in range(1, past.shape[1]):
            if shared_from == t - 1:
                state |= {f"features.{level}": found for level, found in enumerate(features)}
            target, following = self._encode(past[:, t])
            latent = target[:, :0]
            if self.posterior is not None:
                mean, log_variance, inner["posterior"] = self.posterior.step(target, inner.get("posterior"))
                latent = mean if noise is None else drawn(mean, log_variance, noise[:, t - 1])
            if self.prior is not None:
                inner["prior"] = self.prior.step(vector, inner.get("prior"))[2]
            _, inner["predictor"] = self.frame_predictor.step(torch.cat((vector, latent), 1), inner.get("predictor"))
            vector, features = target, following
        inner.pop("posterior", None)
        for name, (h, c) in inner.items():
            state |= {f"{name}.h": h, f"{name}.c": c}
        return state

    def step(self, state: State, noise: Tensor) -> tuple[Tensor, State]:
        """Predicts one frame.

        Args:
            state: What `begin` or the step before returned.
            noise: Standard normal (B, z), of the prior's draw.

        Returns:
            The frame (B, C, H, W) in (0, 1), and the next state.
        """
        vector, features = self._encode(state["frame"])
        after = {name: value for name, value in state.items() if name.startswith("features.")}
        if after:
            features = [after[f"features.{level}"] for level in range(len(features))]
        latent = noise
        if self.prior is not None:
            mean, log_variance, inner = self.prior.step(vector, _inner(state, "prior"))
            latent = drawn(mean, log_variance, noise)
            after |= {"prior.h": inner[0], "prior.c": inner[1], "prior_mean": mean}
        predicted, inner = self.frame_predictor.step(torch.cat((vector, latent), 1), _inner(state, "predictor"))
        frame = self.decoder(predicted[:, None], [level[:, None] for level in features])[:, 0]
        return frame, {"frame": frame, **after, "predictor.h": inner[0], "predictor.c": inner[1]}

    def _encode(self, frame: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Vector (B, g) and features of frames (B, C, H, W)."""
        vectors, features = self.encoder(frame[:, None])
        return vectors[:, 0], [level[:, 0] for level in features]


def drawn(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """The draw that standard normal noise makes from a Gaussian."""
    return mean + noise * torch.exp(0.5 * log_variance)


def _shared(features: Tensor, shared_from: int | None) -> Tensor:
    """Features (B, T, ...) that the decoder of frames 1 to T-1 sees."""
    before = features[:, :-1]
    if shared_from is None or shared_from + 1 >= before.shape[1]:
        return before
    steps = before.shape[1] - shared_from - 1
    same = before[:, shared_from : shared_from + 1].expand(-1, steps, *[-1] * (before.ndim - 2))
    return torch.cat((before[:, : shared_from + 1], same), dim=1)


def _inner(state: State, name: str) -> LSTMState | None:
    return (state[f"{name}.h"], state[f"{name}.c"]) if f"{name}.h" in state else None
