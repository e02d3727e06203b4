"""The evaluations behind `vgen evaluate`."""
