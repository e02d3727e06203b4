"""Plain-data groups of LFAE arguments, named as in the official YAML; defaults are its mug128 configuration."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class _Group:
    @classmethod
    def of(cls, value: "Self | Mapping[str, Any]") -> Self:
        """Accepts the group itself or plain data, as a checkpoint records it."""
        return value if isinstance(value, cls) else cls(**value)  # type: ignore[arg-type]

    def arguments(self) -> dict[str, Any]:
        """The fields as arguments of the network that the group describes."""
        return asdict(self)


@dataclass(frozen=True)
class RegionPredictorConfig(_Group):
    """See `RegionPredictor`.

    Args:
        block_expansion: Base width of the hourglass.
        max_features: Upper limit of any width.
        num_blocks: Depth of the hourglass; the down-scaled side must be divisible by 2^num_blocks.
        temperature: Of the softmax over pixels.
        scale_factor: Anti-aliased down-scaling of the input.
        pca_based: Affine frames by PCA of the heat maps; otherwise regressed where `LFAE.estimate_affine` is on.
        pad: Padding of the heads: 3 for MUG (MRAA vox), 0 for MHAD and NATOPS (MRAA taichi).
    """

    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    temperature: float = 0.1
    scale_factor: float = 0.25
    pca_based: bool = True
    pad: int = 3


@dataclass(frozen=True)
class BackgroundConfig(_Group):
    """See `BGMotionPredictor`.

    Args:
        block_expansion: Base width of the encoder.
        max_features: Upper limit of any width.
        num_blocks: Depth of the encoder.
        bg_type: Degrees of freedom of the background motion.
    """

    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    bg_type: Literal["zero", "shift", "affine", "perspective"] = "affine"


@dataclass(frozen=True)
class FlowPredictorConfig(_Group):
    """See `PixelwiseFlowPredictor`.

    Args:
        block_expansion: Base width of the hourglass.
        max_features: Upper limit of any width.
        num_blocks: Depth of the hourglass.
        scale_factor: Flow side / image side.
        region_var: Variance of the heat maps where `use_covar_heatmap` is off.
        use_deformed_source: Show the hourglass the source warped by each motion.
        use_covar_heatmap: Heat maps with the regions' own covariance.
        estimate_occlusion_map: Predict occlusion; the diffusion model needs it.
    """

    block_expansion: int = 64
    max_features: int = 1024
    num_blocks: int = 5
    scale_factor: float = 0.25
    region_var: float = 0.01
    use_deformed_source: bool = True
    use_covar_heatmap: bool = True
    estimate_occlusion_map: bool = True


@dataclass(frozen=True)
class GeneratorConfig(_Group):
    """See `Generator`.

    Args:
        block_expansion: Base width.
        max_features: Upper limit of any width.
        num_down_blocks: Halvings between image and latent.
        num_bottleneck_blocks: Residual blocks on the warped latent.
        skips: Blend decoder levels and output with warped encoder features.
        flow_predictor: The flow predictor inside the generator.
    """

    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    num_bottleneck_blocks: int = 6
    skips: bool = True
    flow_predictor: FlowPredictorConfig = field(default_factory=FlowPredictorConfig)

    def __post_init__(self) -> None:
        """Accepts plain data for the nested group."""
        object.__setattr__(self, "flow_predictor", FlowPredictorConfig.of(self.flow_predictor))

    def arguments(self) -> dict[str, Any]:
        """The fields as arguments of `Generator`."""
        plain = asdict(self)
        return plain | {"pixelwise_flow_predictor_params": plain.pop("flow_predictor")}


MUG128_REGIONS = RegionPredictorConfig()
MUG128_BACKGROUND = BackgroundConfig()
MUG128_GENERATOR = GeneratorConfig()
