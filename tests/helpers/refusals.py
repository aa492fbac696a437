"""Checks of configs that refuse a setting."""

import pytest

from lens_d2.io.errors import DataError


def expect_refusal(check, cfg, opts, fault):
    """A config passes a check, and fails it with some options, which the error names."""
    check(cfg)
    faulty = cfg.clone()
    faulty.merge_from_list(opts)
    with pytest.raises(DataError, match=fault):
        check(faulty)
