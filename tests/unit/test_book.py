"""What a RayCluster's annotations show of its reservations."""

from __future__ import annotations

from rayml.cluster.book import is_written, left_out, reservations_of, write_book


def test_of_many_reservations_the_rest_is_counted() -> None:
    lines = [{"run": f"r{n}"} for n in range(123)]
    cluster = {"metadata": {"annotations": write_book(lines)}}

    assert reservations_of(cluster) == lines[:100]
    assert left_out(cluster) == 23


def test_a_count_that_is_no_longer_true_is_taken_away() -> None:
    cluster = {"metadata": {"annotations": write_book([{"run": "r"}] * 101)}}
    few = write_book([{"run": "r"}] * 100)

    assert not is_written(few, cluster)
    assert few["rayml.io/reservations-more"] is None
    assert is_written(write_book([]), {"metadata": {}})
