"""Two sets of clips, a protocol, and the numbers with everything that decides them.

    record = compare(real, fake, "stylegan_v_16", device="cuda", cache="~/.cache/vgen/features")
    record.numbers()["fvd/stylegan_v_16"]; record.write("fvd.json")

On several ranks every one calls `compare` with the same arguments and gets the same record. Ranks take whole batches of
the same list of clips, features are sorted by clip and all statistics are float64 on the CPU: the number of ranks and
of reading threads changes no digit, and the batch size none of the first six.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgen.errors import UserError
from vgen.metrics.bootstrap import bootstrap_interval
from vgen.metrics.cache import FeatureCache
from vgen.metrics.catalogue import CLIPSIM, MetricCard, Role, chosen_metrics
from vgen.metrics.consistency import EmbeddingMetric, clip_similarity
from vgen.metrics.detectors.base import Detector
from vgen.metrics.detectors.image import ClipDetector
from vgen.metrics.detectors.motion import Dynamics, Flickering, Smoothness
from vgen.metrics.detectors.opening import open_detector, open_flow
from vgen.metrics.distribution import ConditionalFVD, VideoInceptionScore
from vgen.metrics.features import FeatureMetric, Features
from vgen.metrics.pairs import Distances, lpips_distances, score_pairs
from vgen.metrics.passes import FeaturePasses, Progress, Set
from vgen.metrics.per_clip import group_numbers
from vgen.metrics.protocols import Protocol, load_protocol
from vgen.metrics.ranks import rank_and_size
from vgen.metrics.reading import same_size
from vgen.metrics.record import EvaluationRecord, described, versions
from vgen.metrics.selection import ClipRef, Selection
from vgen.metrics.sources import ClipSource
from vgen.metrics.study import Compared

# Below this the finite-sample bias of a Fréchet distance is a good part of its value.
FEW_CLIPS = 2048
_METADATA = {"cfvd": "labels", "sfvd": "subjects", "clipsim": "texts"}
_log = logging.getLogger(__name__)


def compare(
    real: ClipSource,
    fake: ClipSource,
    protocol: Protocol | str | Path,
    metrics: Sequence[str] | None = None,
    detectors: Mapping[Role, Detector] | None = None,
    device: torch.device | str = "cpu",
    *,
    batch: int = 16,
    workers: int = 0,
    lpips: Distances | None = None,
    floor: bool = True,
    cache: str | Path | FeatureCache | None = None,
    progress: Progress | None = None,
    seen: Callable[[Compared], None] | None = None,
) -> EvaluationRecord:
    """Measures generated clips against real ones under a protocol.

    Args:
        real: Videos of the data set.
        fake: Generated videos; the protocol takes the first ones. Where it has `made: reconstructions`, those of the
            real videos of the same names: the same windows of both are compared.
        protocol: One of `protocol_names()`, a YAML file, or a `Protocol`.
        metrics: Names of `vgen.metrics.catalogue.METRICS` and, of reconstructions, `vgen.metrics.pairs.PAIR_SCORES`;
            None takes those of the protocol.
        detectors: Networks by role, such as `{"i3d": SmallDetector(...)}`, instead of the published files. Numbers are
            named after what they rest on.
        device: Where the networks run.
        batch: Clips that are read at once, and that pass the networks opened here.
        workers: Threads that read ahead.
        lpips: Networks of LPIPS by backbone, instead of those that belong to the files.
        floor: Also compare real with real clips, at the same counts.
        cache: Folder for the features of real clips.
        progress: Told what is read, and how many clips of how many are done on this rank.
        seen: Gets what was read, on every rank, when all numbers are there (see `vgen.metrics.study`).

    Returns:
        The numbers and what decides them; the same on all ranks.

    Raises:
        UserError: Unknown protocol or metric; a missing detector; a set that is empty or of one video; clips that are
            too short, of differing sizes, or not finite; a metric that needs labels, subjects or prompts without them.
    """
    if batch < 1:
        raise UserError(f"at least one clip is read at once, not {batch}", where="batch")
    if not isinstance(protocol, Protocol):
        protocol = load_protocol(protocol)
    comparison = _Comparison({"real": real, "generated": fake}, protocol, metrics)
    comparison.open(dict(detectors or {}), lpips, torch.device(device), batch, workers, cache, progress)
    entries = comparison.measure()
    if floor:
        comparison.measure_floor(entries)
    if seen is not None:
        seen(comparison.compared())
    return comparison.record(entries)


class _Comparison:
    """One comparison under way."""

    passes: FeaturePasses
    distances: Distances

    def __init__(self, sources: Mapping[Set, ClipSource], protocol: Protocol, metrics: Sequence[str] | None) -> None:
        self.sources, self.warnings = sources, list[str]()
        self.paired = protocol.made == "reconstructions"
        for what, source in sources.items():
            if len(source) < 2:
                found = "no video" if len(source) == 0 else "one video only"
                raise UserError(f"{found} in the {what} set: a distribution needs more", where=f"{what} videos")
        self.protocol = self._fitted(protocol.of(sources["real"].data))
        self.cards, self.scores = chosen_metrics(metrics or protocol.metrics, protocol)
        for card in self.cards:
            for what, source in sources.items():
                field = _METADATA.get(card.name)
                if field is not None and getattr(source, field) is None and (card.compares or what == "generated"):
                    raise UserError(f"{card.name} needs the {field} of the {what} videos", where=f"{what} videos")
        self.selections = {what: Selection(source, self.protocol) for what, source in sources.items()}
        self.metrics = {card.name: card.build(self.protocol) for card in self.cards if card is not CLIPSIM}
        self.lists: dict[Set, list[str]] = {"real": [], "generated": []}
        self.counts: dict[Set, int] = {}

    def _fitted(self, protocol: Protocol) -> Protocol:
        """The protocol with the number of generated clips that there are: with fewer it is another protocol."""
        real, n = self.sources["real"], len(self.sources["generated"])
        if not self.paired and protocol.n_fake is not None and n < protocol.n_fake:
            self._warn(f"{protocol.name} takes {protocol.n_fake} generated clips, there are {n}")
            protocol = protocol.but(n_fake=n)
        if real.split and real.split != protocol.split:
            self._warn(f"{protocol.name} takes real clips of the split {protocol.split}, these are {real.split}")
        if not self.paired and protocol.trials > 1 and n < protocol.trials * (protocol.n_fake or n):
            self._warn(f"the {protocol.trials} trials share their generated clips: there are only {n}")
        return protocol

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        if rank_and_size()[0] == 0:
            _log.warning("%s", text)

    # ---- detectors ---------------------------------------------------------------------------------------------------

    def open(
        self,
        given: dict[Role, Detector],
        lpips: Distances | None,
        device: torch.device,
        batch: int,
        workers: int,
        cache: str | Path | FeatureCache | None,
        progress: Progress | None,
    ) -> None:
        """Looks at one clip of each set, then opens the networks: a mistake costs no pass."""
        cache = cache if cache is None or isinstance(cache, FeatureCache) else FeatureCache(cache)
        detectors: dict[Role, Detector] = {}
        quantise = self.protocol.quantise
        self.passes = FeaturePasses(detectors, self.sources, quantise, device, batch, workers, cache, progress)
        readers = self.passes.readers
        readers["real"].read(self.selections["real"].real()[0])
        readers["generated"].read(self._generated(0)[0])
        same_size(readers["real"].shape, readers["generated"].shape)
        for role in dict.fromkeys(card.role for card in self.cards):
            detectors[role] = detector = (given.get(role) or self._opened(role, batch)).to(device).eval()
            detector.check_frames(self.protocol.n_frames)
            if detector.identity.kind != "published":
                name = detector.identity.name
                self._warn(f"{role} is the {detector.identity.kind} network {name}: no published number compares")
        self.distances = lpips_distances(self.scores, lpips)

    def _opened(self, role: Role, batch: int) -> Detector:
        if role == "flickering":
            return Flickering(batch)
        if role == "smoothness":
            return Smoothness(open_flow())
        if role == "dynamics":
            return Dynamics(open_flow(), float(self.sources["generated"].settings.get("fps", 8.0)))
        return open_detector(role, epsilon=self.protocol.eps, spatial=self.protocol.spatial, batch=batch)

    def compared(self) -> Compared:
        """What was read in the first trial."""
        clips: dict[Set, list[ClipRef]] = {"real": self.selections["real"].real(), "generated": self._generated(0)}
        role = next((card.role for card in self.cards if card.compares), None)
        features: dict[Set, Features] = {}
        if role is not None:
            features = {what: self._features(what, listed, [role])[role] for what, listed in clips.items()}
        return Compared(self.protocol, self.passes, role, self.selections, clips, features)

    # ---- numbers -----------------------------------------------------------------------------------------------------

    def measure(self) -> dict[str, dict[str, Any]]:
        """The entry of every metric, by the name that it deserves."""
        trials: list[dict[str, dict[str, Any]]] = []
        for trial in range(self.protocol.trials):
            lists: dict[Set, list[ClipRef]] = {
                "real": self.selections["real"].real(trial),
                "generated": self._generated(trial),
            }
            for what, clips in lists.items():
                self.lists[what].append(self.selections[what].list_hash(clips))
                self.counts[what] = len(clips)
            fake = self._features("generated", lists["generated"], list(self.passes.detectors))
            real = self._features("real", lists["real"], self._comparing())
            values = {
                self._key(card): self._entry(
                    card,
                    self._clipsim(fake[card.role], lists["generated"])
                    if card is CLIPSIM
                    else self._value(card, real.get(card.role), fake[card.role]),
                )
                for card in self.cards
            }
            trials.append(values | self._pairs(lists))
        fewest = min(self.counts.values()) if self._comparing() else self.counts["generated"]
        if self.cards and fewest < FEW_CLIPS:
            self._warn(f"only {fewest} clips: below {FEW_CLIPS} the bias of such numbers is large (see the floor)")
        return {key: _averaged([trial[key] for trial in trials]) for key in trials[0]}

    def _pairs(self, clips: Mapping[Set, list[ClipRef]]) -> dict[str, dict[str, Any]]:
        """The entries of the scores of pairs."""
        if not self.scores:
            return {}
        readers, progress = self.passes.readers, self.passes.progress
        found = score_pairs(
            (readers["generated"], readers["real"]),
            (clips["generated"], clips["real"]),
            self.sources["real"].subjects,
            self.scores,
            self.distances,
            self.passes.device,
            self.passes.batch,
            None if progress is None else lambda done, total: progress("paired", done, total),
        )
        return {f"{name}/{self.protocol.name}": {**entry, "n_real": entry["n"]} for name, entry in found.items()}

    def _generated(self, trial: int) -> list[ClipRef]:
        if not self.paired:
            return self.selections["generated"].fake(trial)
        return self.selections["generated"].counterparts(self.selections["real"], trial)

    def measure_floor(self, entries: dict[str, dict[str, Any]]) -> None:
        """Adds to every metric that compares what it gives for two sets of real clips."""
        if not self._comparing():
            return
        first, second, how = self.selections["real"].floor(self.counts["generated"])
        if min(len(first), len(second)) < 2:
            self._warn("too few real videos for a real-against-real floor")
            return
        if how != "disjoint videos":
            self._warn(f"the floor compares {how}: the data set has too few videos for two sets of these counts")
        sides = [self._features("real", clips, self._comparing()) for clips in (first, second)]
        for card in self.cards:
            if not card.compares:
                continue
            try:
                value = self._value(card, sides[0][card.role], sides[1][card.role])["value"]
            except UserError as error:  # such as a class that has only one clip in one of the sets
                self._warn(f"no floor of {card.name}: {error.what}")
                continue
            counts = {"n_real": len(first), "n_fake": len(second)}
            entries[self._key(card)]["floor"] = {"value": value, **counts, "sets": how}

    def _comparing(self) -> list[Role]:
        return list(dict.fromkeys(card.role for card in self.cards if card.compares))

    def _features(self, what: Set, clips: list[ClipRef], roles: list[Role]) -> dict[Role, Features]:
        return self.passes.features(what, clips, self.selections[what].list_hash(clips), roles)

    def _key(self, card: MetricCard) -> str:
        return f"{card.called(self.passes.detectors[card.role].identity.kind)}/{self.protocol.name}"

    def _value(self, card: MetricCard, real: Features | None, fake: Features) -> dict[str, Any]:
        metric: FeatureMetric = self.metrics[card.name]
        found: dict[str, Any] = {"value": float(metric.score(real, fake))}
        if isinstance(metric, EmbeddingMetric):
            assert metric.clip_values is not None
            found |= _interval(metric.clip_values, fake.subject)
        if isinstance(metric, ConditionalFVD):
            found["per_group"] = self._named(metric)
        if isinstance(metric, VideoInceptionScore):
            found["std"] = metric.deviation
        return found

    def _clipsim(self, fake: Features, clips: list[ClipRef]) -> dict[str, Any]:
        detector, texts = self.passes.detectors["clip"], self.sources["generated"].texts
        if not isinstance(detector, ClipDetector) or detector.tokenizer is None:
            raise UserError("clipsim needs CLIP with its tokenizer", where="detectors")
        assert texts is not None
        prompts = detector.text([texts[clip.video] for clip in clips]).cpu()
        values = clip_similarity(fake.values, prompts)
        return {"value": float(values.mean()), **_interval(values, fake.subject)}

    def _named(self, metric: ConditionalFVD) -> dict[str, float]:
        """Values by class number, or by the subjects' names."""
        if metric.by == "label":
            return {str(label): value for label, value in metric.per_group.items()}
        names = sorted({name for source in self.sources.values() for name in source.subjects or ()})
        numbers = dict(zip(group_numbers(names, len(names)).tolist(), names, strict=True))
        return {numbers[number]: value for number, value in metric.per_group.items()}

    def _entry(self, card: MetricCard, found: dict[str, Any]) -> dict[str, Any]:
        n = {"n": self.counts["generated"], "n_real": self.counts["real"] if card.compares else 0}
        return {**found, **n, "unit": "", "detector": self.passes.detectors[card.role].identity.to_dict()}

    def record(self, entries: dict[str, dict[str, Any]]) -> EvaluationRecord:
        """The record of this comparison."""
        sides: dict[str, Any] = {}
        for what, source in self.sources.items():
            counts = {"videos": len(source), "clips": self.counts[what], "clip_lists": self.lists[what]}
            shape = self.passes.readers[what].shape
            assert shape is not None
            sides[what] = {**described(source), **counts, "clip_shape": list(shape)}
        settings = {
            "protocol": self.protocol.to_dict(),
            **sides,
            "seed": self.protocol.seed,
            "batch": self.passes.batch,
            "device": self.passes.device.type,
            "versions": versions(),
        }
        return EvaluationRecord(self.protocol.name, entries, settings, tuple(self.warnings))


def _averaged(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of a metric over all trials."""
    if len(trials) == 1:
        return trials[0]
    values = torch.tensor([trial["value"] for trial in trials], dtype=torch.float64)
    mean, std = float(values.mean()), float(values.std())
    reach = 1.96 * std / len(trials) ** 0.5
    own = {"value": mean, "std": std, "low": mean - reach, "high": mean + reach, "trials": values.tolist()}
    return {**trials[0], **own}


def _interval(values: Tensor, subjects: Tensor) -> dict[str, float]:
    low, high = bootstrap_interval(values, None if (subjects < 0).any() else subjects)
    return {"low": low, "high": high}
