"""Plans: senseless ones are refused, and streams of random numbers do not meet."""

import pytest

from lens_d2.phantom.plan import SIZES


@pytest.mark.parametrize(
    "change", [{"train": 0}, {"matrix": 100}, {"missing_rate": 1.0}, {"hardness": 9}, {"seed": -1}]
)
def test_senseless_plans_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        SIZES["tiny"].with_changes(**change)


def test_streams_depend_on_their_numbers_alone():
    plan = SIZES["tiny"]
    first = plan.rng("luna", 3).random(4)
    assert (plan.with_changes(train=9, luna=None).rng("luna", 3).random(4) == first).all()
    others = [
        plan.rng("luna", 4),
        plan.rng("lits", 3),
        plan.rng("luna", 3, 1),
        plan.with_changes(seed=1).rng("luna", 3),
    ]
    assert all((other.random(4) != first).all() for other in others)
