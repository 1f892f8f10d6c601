"""Which initialisation trains: networks of four hidden layers on scikit-learn's digits, in a table as that of Glorot
and Bengio (2010).

    python benches/digits.py [--plot digits.png]

Plain SGD on the cross-entropy, no momentum, biases from zero. For each activation and scheme the rate is the one with
the least error on the validation digits, the mean over the seeds; the table's errors are on the test digits, which
nothing is chosen by. All rates and seeds of a scheme are trained at once, as the first axis of all arrays.
"""

import argparse
from itertools import pairwise
from time import perf_counter

import numpy as np
from sklearn.datasets import load_digits

import xavierfast as xf
from xavierfast.propagation import ACTIVATIONS, SCHEMES, suggest
from xavierfast.propagation.measure import count_distinct
from xavierfast.propagation.plots import COLORS

WIDTHS = (64, 100, 100, 100, 100, 10)
SEEDS = range(5)
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
EPOCHS, BATCH = 50, 32


def digits():
    """Training, validation and test digits: 1000, 397 and 400, in a fixed random order; inputs from -1 to 1."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 8 - 1).astype(np.float32), labels[order]
    return [(images[part], labels[part]) for part in (slice(1000), slice(1000, 1397), slice(1397, None))]


def weights_of(rule):
    """The weights of each layer, (rates * seeds, fan_in, fan_out)."""
    keywords = rule if isinstance(rule, dict) else {"init": rule}
    return [
        np.tile(
            [xf.Table(shape, seed=seed, name=f"layer {k}", **keywords).read() for seed in SEEDS], (len(RATES), 1, 1)
        )
        for k, shape in enumerate(pairwise(WIDTHS), 1)
    ]


def forward(x, weights, biases, f):
    """The pre-activations and the activations of each layer; the last one's are the softmax."""
    outputs, sums = [np.broadcast_to(x, (len(weights[0]), *x.shape))], []
    for weight, bias in zip(weights, biases, strict=True):
        sums.append(outputs[-1] @ weight + bias)
        outputs.append(f(sums[-1]))
    powers = np.exp(sums[-1] - sums[-1].max(axis=-1, keepdims=True))
    outputs[-1] = powers / powers.sum(axis=-1, keepdims=True)
    return sums, outputs


def train(rule, activation, x, y):
    """Trained weights and biases, and the loss of each epoch, (epochs, rates * seeds)."""
    f, slope_of = ACTIVATIONS[activation]
    weights = weights_of(rule)
    biases = [np.zeros((len(weight), 1, weight.shape[-1]), np.float32) for weight in weights]
    rates = np.repeat(np.float32(RATES), len(SEEDS))[:, None, None]
    generator, targets, losses = np.random.default_rng(0), np.eye(10, dtype=np.float32)[y], []
    for _ in range(EPOCHS):
        order, total = generator.permutation(len(x)), 0.0
        for batch in np.array_split(order, len(x) // BATCH):
            sums, outputs = forward(x[batch], weights, biases, f)
            total = total - np.log((outputs[-1] * targets[batch]).sum(axis=-1) + 1e-30).sum(axis=-1)
            gradient = (outputs[-1] - targets[batch]) / len(batch)
            for k in reversed(range(len(weights))):
                below = (gradient @ weights[k].swapaxes(1, 2)) * slope_of(sums[k - 1]) if k else None
                weights[k] -= rates * (outputs[k].swapaxes(1, 2) @ gradient)
                biases[k] -= rates * gradient.sum(axis=1, keepdims=True)
                gradient = below
        losses.append(total / len(x))
    return weights, biases, np.array(losses)


def errors_of(weights, biases, activation, x, y):
    """Shares of wrong answers, (rates, seeds), and the fewest distinct neurons of a hidden layer, alike."""
    _, outputs = forward(x, weights, biases, ACTIVATIONS[activation][0])
    wrong = (outputs[-1].argmax(axis=-1) != y).mean(axis=-1)
    distinct = [min(count_distinct(z[net]) for z in outputs[1:-1]) for net in range(len(weights[0]))]
    return wrong.reshape(len(RATES), -1), np.reshape(distinct, (len(RATES), -1))


# A colour for each variance, of those that propagation draws with: rows of the same variance differ by their lines.
STYLES = {
    "zeros": (COLORS[0], "-", "x"), "random_constant": (COLORS[1], "--", "o"), "normal": (COLORS[3], ":", "v"),
    "old_heuristic": (COLORS[4], "-.", "^"), "xavier_uniform": (COLORS[5], "-", "D"),
    "xavier_normal": (COLORS[5], "--", "<"), "xavier_truncated_normal": (COLORS[5], ":", ">"),
    "he_normal": (COLORS[6], (0, (6, 2)), "*"), "lecun_normal": (COLORS[2], "-.", "s"),
    "xavier, suggested gain": (COLORS[7], (0, (1, 1)), "P"),
}  # fmt: skip


def plot(curves, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    axes = figure.subplots(1, len(curves), sharey=True)
    for ax, (activation, schemes) in zip(axes, curves.items(), strict=True):
        for k, (scheme, losses) in enumerate(schemes.items()):
            (color, line, marker), epochs = STYLES[scheme], np.arange(1, EPOCHS + 1)
            ax.fill_between(epochs, losses.min(axis=1), losses.max(axis=1), color=color, alpha=0.15, linewidth=0)
            ax.plot(
                epochs, losses.mean(axis=1), color=color, linestyle=line, marker=marker, markevery=(k, 9), label=scheme
            )
        ax.set(yscale="log", ylim=(5e-4, 50), xlabel="epoch", title=activation)
    axes[0].set_ylabel("cross-entropy on the training digits")
    figure.suptitle("Training loss: mean, and in pale the range, of 5 seeds", fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", help="draw the loss curves there")
    path, begin = parser.parse_args().plot, perf_counter()
    training, validation, test = digits()
    curves = {}
    print("| activation | scheme | test error, % | final loss | rate | distinct neurons of 100, least |")
    print("|---|---|---|---|---|---|")
    for activation in ("sigmoid", "tanh"):
        found = suggest(activation)
        schemes = SCHEMES | {f"xavier, gain {found.gain:.1f}": {"init": found.init, **found.parameters}}
        for scheme, rule in schemes.items():
            with np.errstate(all="ignore"):
                weights, biases, losses = train(rule, activation, *training)
                best = errors_of(weights, biases, activation, *validation)[0].mean(axis=1).argmin()
                wrong, distinct = (figures[best] for figures in errors_of(weights, biases, activation, *test))
            losses = losses.reshape(EPOCHS, len(RATES), -1)[:, best]
            curves.setdefault(activation, {})["xavier, suggested gain" if "," in scheme else scheme] = losses
            print(f"| {activation} | {scheme} | {100 * wrong.mean():.1f} ± {100 * wrong.std(ddof=1):.1f} | "
                  f"{losses[-1].mean():.2g} | {RATES[best]} | {distinct.min()} |", flush=True)  # fmt: skip
    if path:
        plot(curves, path)
    print(f"\n{perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
