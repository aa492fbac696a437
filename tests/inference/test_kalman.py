"""The filter is the textbook's."""

import numpy as np
from helpers.slice_boxes import slice_boxes
from hypothesis import given, settings

from lens_d2.inference.kalman import BoxStates, Noise, measure, to_boxes

few = settings(max_examples=30, deadline=None)


@few
@given(slice_boxes())
def test_boxes_are_what_is_measured_of_them(boxes):
    np.testing.assert_allclose(to_boxes(measure(boxes[:, 1:5])), boxes[:, 1:5], atol=1e-9)


def test_the_filter_is_the_textbooks():
    """One component against the plain 2x2 equations, with the box's size as the unit."""
    noise, boxes = Noise(0.05, 0.03, 0.1), [[0, 0, 20, 20], [2, 0, 22, 20], [3, 0, 23, 20], [6, 0, 26, 20]]
    state, covariance = np.array([10.0, 0.0]), np.diag([0.05**2, 0.1**2])
    states = BoxStates.start(np.array([boxes[0]], dtype=float), noise)
    move = np.array([[1.0, 1.0], [0.0, 1.0]])
    for box in boxes[1:]:
        state, covariance = move @ state, move @ covariance @ move.T + np.diag([0, 0.03**2])
        gain = covariance[:, 0] / (covariance[0, 0] + 0.05**2)
        state = state + gain * ((box[0] + box[2]) / 2 - state[0])
        covariance = (np.eye(2) - np.outer(gain, [1, 0])) @ covariance
        states = states.predict(noise).update(np.array([0]), np.array([box], dtype=float), noise)
        np.testing.assert_allclose([states.value[0, 0], states.velocity[0, 0]], state)
        np.testing.assert_allclose(states.covariance[0], covariance)
