"""Distances and scores of features, against closed forms and sums written out."""

import math

import numpy as np
import pytest
import torch

from vgen.errors import UserError
from vgen.metrics import FVD, ConditionalFVD, VideoInceptionScore
from vgen.metrics.bootstrap import frechet_interval
from vgen.metrics.features import Features
from vgen.metrics.frechet import Gaussian, frechet_distance, gaussian, tfgan_frechet_distance
from vgen.metrics.inception_score import inception_score
from vgen.metrics.kernel import kernel_inception_distance, polynomial_mmd


def draw(n, d, seed=0, shift=0.0, scale=1.0):
    chance = torch.Generator().manual_seed(seed)
    spectrum = 0.9 ** torch.arange(d)
    return (torch.randn(n, d, generator=chance) * spectrum * scale + shift).float()


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    a = Gaussian(torch.tensor([1.0, 2]).double(), torch.diag(torch.tensor([4.0, 9]).double()), 10)
    b = Gaussian(torch.tensor([0.0, 4]).double(), torch.diag(torch.tensor([1.0, 25]).double()), 10)
    expected = 1 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2
    assert float(frechet_distance(a, b)) == pytest.approx(expected, rel=1e-14)
    assert float(frechet_distance(b, a)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("n, d", [(400, 40), (20, 40), (41, 40)])
def test_frechet_equals_the_nuclear_norm_also_where_covariances_are_singular(n, d):
    x, y = draw(n, d).double(), draw(n + 3, d, 1, 0.2, 1.3).double()
    centred = [side - side.mean(0) for side in (x, y)]
    norm = torch.linalg.svdvals(centred[0] @ centred[1].T).sum() / math.sqrt((n - 1) * (n + 2))
    squares = sum(side.square().sum() / (len(side) - 1) for side in centred)
    expected = (x.mean(0) - y.mean(0)).square().sum() + squares - 2 * norm
    assert float(frechet_distance(gaussian(x), gaussian(y))) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_of_a_set_with_itself_is_zero():
    for n in (300, 20):
        side = gaussian(draw(n, 40))
        assert abs(float(frechet_distance(side, side))) < 1e-9


def test_the_divisor_of_the_covariance():
    x = draw(30, 5)
    assert torch.allclose(gaussian(x).covariance, torch.from_numpy(np.cov(x.double().numpy(), rowvar=False)))
    assert torch.allclose(gaussian(x, "biased").covariance * 30 / 29, gaussian(x).covariance)
    with pytest.raises(ValueError, match="two features"):
        gaussian(x[:1])


def test_tfgan_agrees_where_no_eigenvalue_is_tiny_and_leaves_its_arguments_alone():
    x, y = draw(300, 12).double(), draw(300, 12, 1, 0.3).double()
    kept = x.clone()
    exact = float(frechet_distance(gaussian(x), gaussian(y)))
    assert float(tfgan_frechet_distance(x, y)) == pytest.approx(exact, rel=1e-9)
    assert torch.equal(x, kept)


def test_polynomial_mmd_by_hand():
    x, y = draw(7, 4).double(), draw(5, 4, 1).double()

    def kernel(a, b):
        return (float(a @ b) / 4 + 1) ** 3

    within_x = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert float(polynomial_mmd(x, y)) == pytest.approx(within_x + within_y - 2 * between, rel=1e-12)


def test_kid_of_one_whole_subset_is_the_mmd_of_everything():
    x, y = draw(9, 4).double(), draw(9, 4, 1).double()
    n = 9
    whole = float(kernel_inception_distance(x, y, subsets=1))
    # one subset of all rows differs from all pairs only in the mean over x and y, here over n^2
    assert whole == pytest.approx(float(polynomial_mmd(x, y)), rel=1e-12)
    assert float(kernel_inception_distance(x, y, 5, n, 3)) == pytest.approx(whole, rel=1e-12)
    assert float(kernel_inception_distance(x, y, 5, 4, 3)) != pytest.approx(whole, rel=1e-3)


def test_inception_score_of_certain_and_of_blind_classifiers():
    certain = torch.eye(5).repeat(4, 1) * 1e4
    mean, deviation = inception_score(certain, splits=4)
    assert float(mean) == pytest.approx(5) and float(deviation) == pytest.approx(0)
    assert float(inception_score(torch.zeros(20, 5), splits=2)[0]) == pytest.approx(1)
    # each half sees one class alone, unless rows are shuffled
    sorted_rows = torch.eye(2).repeat_interleave(50, 0) * 1e4
    assert float(inception_score(sorted_rows, splits=2)[0]) == pytest.approx(1)
    assert float(inception_score(sorted_rows, splits=2, shuffle_seed=42)[0]) > 1.9
    with pytest.raises(ValueError, match="3 parts"):
        inception_score(torch.zeros(2, 5), splits=3)


def test_conditional_fvd_is_the_mean_over_classes_and_names_what_is_missing():
    real, fake = Features.of(draw(40, 4), torch.arange(40) % 2), Features.of(draw(30, 4, 1, 0.5), torch.arange(30) % 2)
    metric = ConditionalFVD("label")
    value = metric.score(real, fake)
    by_hand = [
        float(frechet_distance(*(gaussian(side.values[side.label == label]) for side in (fake, real))))
        for label in (0, 1)
    ]
    assert metric.per_group == pytest.approx({0: by_hand[0], 1: by_hand[1]})
    assert float(value) == pytest.approx(np.mean(by_hand))
    with pytest.raises(UserError, match="label 1 has 0 fake clips"):
        metric.score(real, fake.where(fake.label == 0))
    with pytest.raises(UserError, match="without a subject"):
        ConditionalFVD("subject").score(real, fake)


def test_too_few_clips():
    side = Features.of(draw(4, 3))
    with pytest.raises(UserError, match="at least 2 fake clips, got 0"):
        FVD().score(side, None)
    with pytest.raises(UserError, match="at least 10 fake clips, got 4"):
        VideoInceptionScore().score(None, side)


def test_the_interval_of_a_distance_covers_what_larger_sets_give():
    """Sets of 200 of two Gaussians whose distance at 200 features each is known by many draws."""
    torch.manual_seed(0)
    found = [torch.randn(2, 200, 4) for _ in range(60)]
    values = [float(frechet_distance(gaussian(a), gaussian(b + 1))) for a, b in found]
    intervals = [frechet_interval(a, b + 1) for a, b in found[:20]]
    assert all(low < value < high for (low, high), value in zip(intervals, values, strict=False))
    expected = sum(values) / len(values)
    assert sum(low <= expected <= high for low, high in intervals) >= 17
    assert intervals[0] == frechet_interval(found[0][0], found[0][1] + 1)
