"""The VideoMAE-v2 vision transformer of content-debiased FVD (Wang et al. 2023; Ge et al. 2024).

Released weights: ViT-g of 1,011,855,918 parameters, fine-tuned on Something-Something v2, which tells motions apart
rather than objects.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgen.metrics.detectors.base import Detector, Identity
from vgen.metrics.detectors.i3d import resize
from vgen.nn.attention import attend

# The released ViT-g/14.
GIANT = {
    "img_size": 224,
    "patch_size": 14,
    "embed_dim": 1408,
    "depth": 40,
    "num_heads": 16,
    "mlp_ratio": 48 / 11,
    "qkv_bias": True,
    "num_classes": 174,
    "all_frames": 16,
    "tubelet_size": 2,
}


class SelfAttention(nn.Module):
    """Multi-head attention whose keys have no bias."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """A pre-norm transformer block, with layer scale where `init_values` is positive."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, epsilon: float, init_values: float
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, epsilon), nn.LayerNorm(dim, epsilon)
        self.attn = SelfAttention(dim, num_heads, qkv_bias)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})
        scaled = init_values > 0
        self.gamma_1 = nn.Parameter(torch.full((dim,), init_values)) if scaled else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), init_values)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        attended = self.attn(self.norm1(x))
        x = x + (attended if self.gamma_1 is None else self.gamma_1 * attended)
        mapped = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x + (mapped if self.gamma_2 is None else self.gamma_2 * mapped)


class VisionTransformer(nn.Module):
    """Space-time transformer over tubelets, with the official names and keys.

    Args:
        img_size: Side of the frames.
        patch_size: Side of a patch.
        in_chans: Colour channels.
        num_classes: Width of the logits.
        embed_dim: Width of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the MLPs / embed_dim.
        qkv_bias: Whether queries and values have a bias.
        init_values: Initial layer scale; 0: none.
        use_learnable_pos_emb: A learned position table instead of sines.
        all_frames: Frames of a clip.
        tubelet_size: Frames of a token.
        use_mean_pooling: Features are the normed mean of the tokens, else the normed first token.
        norm_epsilon: Of all layer norms.
    """

    pos_embed: Tensor

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        init_values: float = 0.0,
        use_learnable_pos_emb: bool = False,
        all_frames: int = 16,
        tubelet_size: int = 2,
        use_mean_pooling: bool = True,
        norm_epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        side = img_size // patch_size
        self.grid = (all_frames // tubelet_size, side, side)
        self.img_size, self.tubelet_size = img_size, tubelet_size
        tubelet = (tubelet_size, patch_size, patch_size)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(in_chans, embed_dim, tubelet, tubelet)})
        count = self.grid[0] * side * side
        if use_learnable_pos_emb:
            self.pos_embed = nn.Parameter(torch.zeros(1, count, embed_dim))
        else:
            self.register_buffer("pos_embed", sine_table(count, embed_dim), persistent=False)
        self.blocks = nn.ModuleList(
            [Block(embed_dim, num_heads, mlp_ratio, qkv_bias, norm_epsilon, init_values) for _ in range(depth)]
        )
        norm = nn.LayerNorm(embed_dim, norm_epsilon)
        self.fc_norm: nn.LayerNorm | None = norm if use_mean_pooling else None
        self.norm: nn.LayerNorm | None = None if use_mean_pooling else norm
        self.head = nn.Linear(embed_dim, num_classes) if num_classes > 0 else nn.Identity()

    def tokens(self, video: Tensor) -> Tensor:
        """(B, C, T, H, W) -> (B, N, embed_dim), time first, without positions."""
        tokens: Tensor = self.patch_embed["proj"](video).flatten(2).transpose(1, 2)
        return tokens

    def positions(self, steps: int) -> Tensor:
        """The position table for clips of `steps` tubelets, (1, N, embed_dim); other lengths are interpolated in time.

        As cd-fvd does it: trilinear, with a tenth of a step too much so that rounding cannot lose the last one, and
        coordinates by that scale.
        """
        own = self.grid[0]
        if steps == own:
            return self.pos_embed
        table = self.pos_embed.transpose(1, 2).unflatten(2, self.grid)
        table = F.interpolate(table, scale_factor=((steps + 0.1) / own, 1.0, 1.0), mode="trilinear")
        return table.flatten(2).transpose(1, 2)

    def features(self, video: Tensor) -> Tensor:
        """(B, C, T, H, W) in [0, 1] -> (B, embed_dim), the features of content-debiased FVD."""
        x = self.tokens(video)
        x = x + self.positions(x.shape[1] // (self.grid[1] * self.grid[2]))
        for block in self.blocks:
            x = block(x)
        if self.norm is not None:
            return self.norm(x[:, 0])
        assert self.fc_norm is not None
        return self.fc_norm(x.mean(1))

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, T, H, W) in [0, 1] -> (B, num_classes) logits."""
        logits: Tensor = self.head(self.features(video))
        return logits


def sine_table(positions: int, dim: int) -> Tensor:
    """Fixed position table (1, positions, dim): sine on even, cosine on odd channels, in float64 before rounding."""
    channel = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    table = torch.where(channel % 2 == 0, angle.sin(), angle.cos())
    return table.float()[None]


class VideoMAEDetector(Detector):
    """VideoMAE-v2 behind cd-fvd's preprocessing: stretched to the network's side, values in [0, 1].

    Args:
        network: With weights.
        identity: Which weights.
        batch: Clips in each pass.
    """

    def __init__(self, network: VisionTransformer, identity: Identity, batch: int = 16) -> None:
        super().__init__(identity, batch, least_frames=network.tubelet_size)
        self.network = network
        self.eval().requires_grad_(False)

    def features(self, pixels: Tensor) -> Tensor:
        """See `Detector`."""
        return self.network.features(resize(pixels, "stretch", self.network.img_size) / 255)
