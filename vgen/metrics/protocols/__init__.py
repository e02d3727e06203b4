"""Named protocols: everything besides the two sets of clips that decides a number."""

from vgen.metrics.protocols.protocol import Protocol, load_protocol, protocol_names

__all__ = ["Protocol", "load_protocol", "protocol_names"]
