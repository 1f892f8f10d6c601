"""Each row of the tables in docs/coming-from.md: all its calls give the same shape, dtype and distribution.

Distributions are compared by their means, standard deviations and extremes, of 480,000 elements or more. A deviation of
6 standard errors, which is allowed, happens by chance in one of 5 * 10^8 comparisons, and the seeds are fixed: a row
that passes once passes for ever. Nothing is drawn of a constant, so that there everything is equal.
"""

import re
from math import sqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import missing

from xavierfast._core import stream

PAGE = (Path(__file__).parent.parent / "docs/coming-from.md").read_text(encoding="utf-8")
SECTIONS = {title: text for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)}
FRAMEWORKS = ("torch", "jax", "keras")


def rows_of(text):
    """Lists of the calls in each row of a section's table."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [re.findall(r"`(.*?)`", line) for line in lines]


ROWS = [pytest.param(title, calls, id=calls[0]) for title, text in SECTIONS.items() for calls in rows_of(text)]


def tf1_variance_scaling(factor=2.0, mode="FAN_IN", uniform=False):
    """TensorFlow 1.15's tf.contrib.layers.variance_scaling_initializer for matrices, as its source computes."""

    def initializer(shape):
        n = {"FAN_IN": shape[0], "FAN_OUT": shape[1], "FAN_AVG": sum(shape) / 2}[mode]
        rng = np.random.default_rng(0)
        if uniform:
            return rng.uniform(-sqrt(3 * factor / n), sqrt(3 * factor / n), shape).astype(np.float32)
        values = rng.standard_normal(2 * shape[0] * shape[1])
        kept = values[abs(values) < 2][: shape[0] * shape[1]].reshape(shape)
        return (kept * sqrt(1.3 * factor / n)).astype(np.float32)

    return initializer


TF1 = SimpleNamespace(
    contrib=SimpleNamespace(
        layers=SimpleNamespace(
            variance_scaling_initializer=tf1_variance_scaling,
            xavier_initializer=lambda uniform=True: tf1_variance_scaling(1.0, "FAN_AVG", uniform),
        )
    )
)


def test_all_tables_are_read():
    assert {title: len(rows_of(text)) >= 4 for title, text in SECTIONS.items()} == dict.fromkeys(SECTIONS, True)
    assert sum(line.startswith("| ") for line in PAGE.splitlines()) == len(ROWS) + len(SECTIONS)  # and their heads


@pytest.mark.parametrize(("title", "calls"), ROWS)
def test_row(title, calls, monkeypatch):
    names = {"tf": TF1}
    try:
        for block in re.findall(r"```python\n(.*?)```", SECTIONS[title], re.DOTALL):
            exec(block, names)
    except ImportError as error:
        missing(str(error))
    monkeypatch.setattr(stream, "os", SimpleNamespace(urandom=bytes))  # the seed is 0 where the table names none
    np.random.seed(0)
    if "torch" in names:
        names["torch"].manual_seed(0)
    if "keras" in names:
        names["keras"].utils.set_random_seed(0)
    assert len(calls) >= 2
    # Copies, since PyTorch's calls fill the same tensor.
    first, *rest = (np.asarray(eval(call, names)).copy() for call in calls)
    for found in rest:
        assert (found.shape, found.dtype) == (first.shape, first.dtype)
        if first.std() == 0:
            assert (found == first).all()
            continue
        a, b = first.astype(np.float64), found.astype(np.float64)
        assert a.size >= 480_000
        # The standard error of the mean is std / sqrt(n), of the standard deviation at most std / sqrt(2 n).
        assert abs(a.mean() - b.mean()) < 6 * a.std() * sqrt(2 / a.size)
        assert abs(a.std() - b.std()) < 6 * a.std() * sqrt(1 / a.size)
        # Values reach a bound within 20 / n of their mass; the extreme of a normal has a width of its own.
        largest = [abs(values - values.mean()).max() / values.std() for values in (a, b)]
        assert abs(largest[0] - largest[1]) < (0.01 if max(largest) < 3.2 else 1.5)
