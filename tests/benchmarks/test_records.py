"""The benchmark of records alone starts and evaluates what it has made."""

from benchmarks.records import start_and_evaluate


def test_a_small_cohort():
    result = start_and_evaluate(20)
    parts = ["catalog", "cache files", "sampler, an epoch", "loader", "evaluator, outputs", "evaluator, FROC"]
    assert list(result["seconds"]) == parts and list(result["peak_mb"]) == ["before", *parts]
    assert all(seconds >= 0 for seconds in result["seconds"].values())
