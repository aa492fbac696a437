"""Kalman filter of boxes that move from slice to slice, as in SORT and Yang et al. (IEEE Access 7, 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Components of a state and a measurement: centre x and y, area, aspect (width over height).
AREA, ASPECT = 2, 3
TRANSITION = np.array([[1.0, 1.0], [0.0, 1.0]])  # of a component's (value, velocity), over one slice


def measure(boxes: np.ndarray) -> np.ndarray:
    """(n, 4) centre x, centre y, area, aspect of (n, 4) XYXY boxes."""
    side = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.column_stack([center, side.prod(axis=1), side[:, 0] / side[:, 1]])


def to_boxes(measured: np.ndarray) -> np.ndarray:
    """(n, 4) XYXY boxes of (n, 4) centre x, centre y, area, aspect."""
    width = np.sqrt(measured[:, AREA] * measured[:, ASPECT])
    half = np.column_stack([width, measured[:, AREA] / width]) / 2
    return np.concatenate([measured[:, :2] - half, measured[:, :2] + half], axis=1)


@dataclass(frozen=True)
class Noise:
    """Standard deviations as parts of a box's size: its side for the centre, otherwise the component itself.

    Attributes:
        measurement: of a measured component.
        process: of the change of its velocity from a slice to the next.
        velocity: of the velocity of a box that has been seen once.
    """

    measurement: float = 0.05
    process: float = 0.03
    velocity: float = 0.1


@dataclass(frozen=True)
class BoxStates:
    """States of n boxes on one slice, each with the velocity at which it changes from slice to slice.

    The four components move independently, at constant velocity. Their noise is in proportion to the box's size,
    so that a small box is tracked like a large one, and in these units they share one covariance.

    Attributes:
        value: (n, 4) centre x, centre y, area, aspect.
        velocity: (n, 4) of the same.
        covariance: (n, 2, 2) of (value, velocity), in parts of the box's size.
    """

    value: np.ndarray
    velocity: np.ndarray
    covariance: np.ndarray

    @classmethod
    def start(cls, boxes: np.ndarray, noise: Noise) -> BoxStates:
        """States of (n, 4) XYXY boxes that have been seen once."""
        value = measure(boxes)
        covariance = np.diag([noise.measurement**2, noise.velocity**2])
        return cls(value, np.zeros_like(value), np.broadcast_to(covariance, (len(boxes), 2, 2)).copy())

    def predict(self, noise: Noise) -> BoxStates:
        """The states on the next slice, before its boxes are seen. A box never shrinks to nothing."""
        value = self.value + self.velocity
        gone = value[:, AREA:] <= 0
        value[:, AREA:] = np.where(gone, self.value[:, AREA:], value[:, AREA:])
        covariance = TRANSITION @ self.covariance @ TRANSITION.T
        covariance[:, 1, 1] += noise.process**2
        return BoxStates(value, self.velocity, covariance)

    def update(self, rows: np.ndarray, boxes: np.ndarray, noise: Noise) -> BoxStates:
        """The states of some boxes after a measurement of each.

        Args:
            rows: (m,) of the boxes.
            boxes: (m, 4) XYXY, measured.
            noise: of the filter.
        """
        covariance = self.covariance[rows]
        gain = covariance[:, :, 0] / (covariance[:, 0, 0] + noise.measurement**2)[:, None]
        innovation = measure(boxes) - self.value[rows]
        return BoxStates(
            self.value[rows] + gain[:, :1] * innovation,
            self.velocity[rows] + gain[:, 1:] * innovation,
            covariance - gain[:, :, None] * covariance[:, None, 0, :],
        )
