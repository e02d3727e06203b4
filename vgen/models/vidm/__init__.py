"""VIDM: video implicit diffusion models (Mei and Patel, AAAI 2023)."""

from vgen.models.vidm.networks import ContentGenerator, Layout, MotionGenerator

__all__ = ["ContentGenerator", "Layout", "MotionGenerator"]
