"""Lesions of many kinds lie in the body and apart."""

from itertools import combinations

import numpy as np

from lens_d2.phantom.case import random_case
from lens_d2.phantom.plan import SIZES


def test_lesions_of_six_kinds_at_least_lie_in_the_body_and_apart():
    kinds = set()
    for seed in range(6):
        case = random_case(np.random.default_rng(seed), SIZES["small"], studies=2, at_least=3)
        assert len(case.lesions) >= 3 and case.mimics
        kinds |= {lesion.kind for lesion in case.lesions}
        centres = np.array([lesion.centre for lesion in case.lesions], np.float32)
        assert (case.anatomy.torso.skin(*centres.T) > 0).all()
        for one, other in combinations(case.lesions, 2):
            assert np.linalg.norm(one.centre - other.centre) > one.radius(1) + other.radius(1)
    assert len(kinds) >= 6
