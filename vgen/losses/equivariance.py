"""Equivariance of regions under a random geometric transform (FOMM section 3.3, MRAA section 3.5)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vgen.nn.geometry import inverse_2x2
from vgen.nn.warp import coordinate_grid, warp


@dataclass(frozen=True)
class TransformConfig:
    """Distribution of the random transform; defaults are the official ones.

    Args:
        sigma_affine: Standard deviation of the entries of the affine part around the identity.
        sigma_tps: Standard deviation of the thin-plate-spline parameters; 0 leaves the affine part alone.
        points_tps: Control points along each side.
    """

    sigma_affine: float = 0.05
    sigma_tps: float = 0.005
    points_tps: int = 5


class RandomTransform:
    """An affine map plus a thin-plate-like displacement, one for each sample.

    T(z) = theta [z; 1] + (1, 1) sum_j w_j d_j^2 log(d_j + 1e-6), with d_j the **L1** distance to control point j and
    one displacement for both axes: the released code's form, which made the published results.

    Args:
        theta: (B, 2, 3).
        control_params: (B, 1, P^2) weights of the P x P control points over [-1, 1]^2, x fastest; None for affine.
    """

    def __init__(self, theta: Tensor, control_params: Tensor | None = None) -> None:
        self.theta, self.control_params = theta, control_params
        side = 0 if control_params is None else round(control_params.shape[-1] ** 0.5)
        self.control_points = coordinate_grid(side, side, device=theta.device, dtype=theta.dtype).view(-1, 2)

    @classmethod
    def draw(cls, batch: int, config: TransformConfig, device: torch.device | None = None) -> "RandomTransform":
        """Draws from torch's global generator of the CPU, so that a seed means the same on every device."""
        fp32, points = torch.float32, config.points_tps**2
        theta = torch.eye(2, 3, dtype=fp32) + config.sigma_affine * torch.randn(batch, 2, 3, dtype=fp32)
        params = config.sigma_tps * torch.randn(batch, 1, points, dtype=fp32) if config.sigma_tps else None
        # without waiting for the device
        theta = theta.to(device, non_blocking=True)
        return cls(theta, None if params is None else params.to(device, non_blocking=True))

    def _distances(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        offset = coordinates[:, :, None] - self.control_points  # (B, N, P^2, 2)
        return offset.abs().sum(-1), offset.sign()

    def warp_coordinates(self, coordinates: Tensor) -> Tensor:
        """(B or 1, N, 2) -> (B, N, 2)."""
        with torch.autocast(coordinates.device.type, enabled=False):  # coordinates need fp32
            moved = coordinates @ self.theta[:, :, :2].mT + self.theta[:, None, :, 2]
        if self.control_params is None:
            return moved
        distance, _ = self._distances(coordinates)
        bend = (distance.square() * torch.log(distance + 1e-6) * self.control_params).sum(-1, keepdim=True)
        return moved + bend

    def jacobian(self, coordinates: Tensor) -> Tensor:
        """dT/dz in closed form: (B, N, 2) -> (B, N, 2, 2), rows the outputs.

        theta[:, :2] plus, on both rows, sum_j w_j (2 d log(d + 1e-6) + d^2/(d + 1e-6)) sign(z - c_j).
        """
        linear = self.theta[:, None, :, :2].expand(-1, coordinates.shape[1], -1, -1)
        if self.control_params is None:
            return linear
        distance, sign = self._distances(coordinates)
        shifted = distance + 1e-6
        slope = (2 * distance * torch.log(shifted) + distance.square() / shifted) * self.control_params
        return linear + (slope[..., None] * sign).sum(2)[:, :, None, :]

    def transform_frame(self, frame: Tensor) -> Tensor:
        """The frame read at T(grid), reflected at its borders: (B, C, H, W) -> the same shape."""
        height, width = frame.shape[2:]
        grid = coordinate_grid(height, width, device=frame.device, dtype=self.theta.dtype).view(1, -1, 2)
        return warp(frame, self.warp_coordinates(grid).view(-1, height, width, 2), padding="reflection")


def equivariance_shift(driving_shift: Tensor, transform: RandomTransform, transformed_shift: Tensor) -> Tensor:
    """Mean |mu(driving) - T(mu(T(driving)))|; both (B, K, 2)."""
    return (driving_shift - transform.warp_coordinates(transformed_shift)).abs().mean()


def equivariance_affine(
    driving_affine: Tensor,
    transform: RandomTransform,
    transformed_shift: Tensor,
    transformed_affine: Tensor,
    revert_axis_swap: bool = True,
) -> Tensor:
    """Mean |I - A(driving)^-1 J_T(mu) A(T(driving))|.

    Args:
        driving_affine: (B, K, 2, 2).
        transform: The T that made the transformed frame.
        transformed_shift: mu, region centres of the transformed frame (B, K, 2).
        transformed_affine: (B, K, 2, 2).
        revert_axis_swap: Make the [0, 0] entry of the product positive first.
    """
    with torch.autocast(driving_affine.device.type, enabled=False):
        product = inverse_2x2(driving_affine) @ (transform.jacobian(transformed_shift) @ transformed_affine)
    if revert_axis_swap:
        product = product * torch.sign(product[:, :, :1, :1])
    return (torch.eye(2, device=product.device, dtype=product.dtype) - product).abs().mean()
