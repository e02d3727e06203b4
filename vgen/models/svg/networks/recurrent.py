"""The recurrent networks: one that predicts, and those that draw a latent for every frame (section 3)."""

import torch
from torch import Tensor, nn

from vgen.models.svg.networks.layers import initialised

State = tuple[Tensor, Tensor]
"""h and c of all layers, (B, layers, hidden)."""


class Recurrence(nn.Module):
    """Embedding and LSTM: over a whole clip by torch's fused kernels, or frame by frame.

    Args:
        inputs: Size of an input.
        hidden: Size of the LSTM.
        layers: Its layers.
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = initialised(nn.Linear(inputs, hidden))
        self.lstm = nn.LSTM(hidden, hidden, layers, batch_first=True)

    def whole(self, x: Tensor) -> Tensor:
        """All frames (B, T, inputs) from a state of zeros -> (B, T, hidden)."""
        hidden: Tensor = self.lstm(self.embed(x))[0]
        return hidden

    def one(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """One frame (B, inputs) -> (B, hidden) and the next state; None: zeros."""
        lstm = self.lstm
        if state is None:
            zeros = x.new_zeros(len(x), lstm.num_layers, lstm.hidden_size)
            state = (zeros, zeros)
        x, after = self.embed(x), list[tuple[Tensor, Tensor]]()
        for layer, inner in enumerate(zip(state[0].unbind(1), state[1].unbind(1), strict=True)):
            x, cell = torch.lstm_cell(x, inner, *lstm.all_weights[layer])
            after.append((x, cell))
        h, c = zip(*after, strict=True)
        return x, (torch.stack(h, 1), torch.stack(c, 1))


class DeterministicLSTM(Recurrence):
    """Predicts the next frame's vector; ends in tanh.

    Args:
        inputs: Size of an input.
        outputs: Size of an output.
        hidden: Size of the LSTM.
        layers: Its layers.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int, layers: int) -> None:
        super().__init__(inputs, hidden, layers)
        self.output = initialised(nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, outputs) in (-1, 1)."""
        return self.output(self.whole(x)).tanh()

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """(B, inputs) -> (B, outputs) in (-1, 1), and the next state."""
        hidden, state = self.one(x, state)
        return self.output(hidden).tanh(), state


class GaussianLSTM(Recurrence):
    """The distribution of each frame's latent.

    Args:
        inputs: Size of an input.
        latent: Size of the latent.
        hidden: Size of the LSTM.
        layers: Its layers.
    """

    def __init__(self, inputs: int, latent: int, hidden: int, layers: int) -> None:
        super().__init__(inputs, hidden, layers)
        self.mean = initialised(nn.Linear(hidden, latent))
        self.log_variance = initialised(nn.Linear(hidden, latent))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, inputs) -> mean and log variance (B, T, latent)."""
        hidden = self.whole(x)
        return self.mean(hidden), self.log_variance(hidden)

    def step(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor, State]:
        """(B, inputs) -> mean and log variance (B, latent), and the next state."""
        hidden, state = self.one(x, state)
        return self.mean(hidden), self.log_variance(hidden), state
