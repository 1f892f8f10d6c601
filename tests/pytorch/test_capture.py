"""fast_init: whatever asks for a draw, and in whatever way, the draw is ours, numbered and repeatable."""

import math
import threading
from contextlib import contextmanager
from functools import partial

import pytest
from support import difference, missing, same_bits

import xavierfast as xf

try:
    import torch
except ImportError:
    missing("torch is not installed")

import xavierfast.torch as xt

nn = torch.nn
from_before = dict(vars(nn.init))  # functions that were imported by name before


def drawn(make, seed=0):
    """Two tensors that the same code makes, with other draws of torch in between."""
    with xt.fast_init(seed=seed):
        first = make()
    torch.rand(7)
    with xt.fast_init(seed=seed):
        again = make()
    assert torch.equal(first, again)
    return first


def ours(init, *shape, number=0, **parameters):
    return torch.from_numpy(xf.Table(shape, init, seed=0, name=str(number), **parameters).read())


@contextmanager
def replaced(**functions):
    """A library's functions in the place of those of torch.nn.init, as transformers 5 puts them."""
    try:
        for name, function in functions.items():
            setattr(nn.init, name, function)
        yield
    finally:
        for name in functions:
            setattr(nn.init, name, from_before[name])


DRAWS = {
    "uniform_": ("uniform", (-0.5, 0.25), {"low": -0.5, "high": 0.25}),
    "normal_": ("normal", (1.0, 0.5), {"mean": 1.0, "std": 0.5}),
    "trunc_normal_": ("truncated_normal", (0.0, 0.5, -1.0, 1.0), {"std": 0.5}),
    "xavier_uniform_": ("uniform", (), {"low": -math.sqrt(6 / 50), "high": math.sqrt(6 / 50)}),
    "xavier_normal_": ("normal", (), {"std": math.sqrt(2 / 50)}),
    "kaiming_uniform_": ("he_uniform", (0.5,), {"gain": math.sqrt(2 / 1.25), "layout": "oi"}),
    "kaiming_normal_": ("normal", (0.5,), {"std": math.sqrt(2 / 1.25) / math.sqrt(20)}),
}


def wrapped(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


WAYS = {
    "as it is": lambda name: getattr(nn.init, name),
    "imported by name": lambda name: from_before[name],
    "a wrapper": lambda name: wrapped(from_before[name]),
    "a partial": lambda name: partial(from_before[name]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("instead", ["nothing", "wrappers", "partials", "objects"])
@pytest.mark.parametrize("name", DRAWS)
def test_functions_of_torch_and_what_stands_in_their_place(name, way, instead):
    class Callable:
        def __init__(self, function):
            self.function = function

        def __call__(self, *args, **kwargs):
            return self.function(*args, **kwargs)

    kinds = {"nothing": lambda f: f, "wrappers": wrapped, "partials": partial, "objects": Callable}
    init, arguments, parameters = DRAWS[name]
    with replaced(**{name: kinds[instead](from_before[name]) for name in DRAWS}):
        function = WAYS[way](name)
        weight = drawn(lambda: function(nn.Parameter(torch.empty(30, 20)), *arguments).detach())
    if name.startswith("xavier"):  # torch computes the bound by other roundings
        gap = (weight - ours(init, 30, 20, **parameters)).abs().max()
        assert gap < 1e-6
    else:
        assert torch.equal(weight, ours(init, 30, 20, **parameters))


WAYS_OF_TENSORS = {
    "Tensor.normal_": (lambda: torch.empty(30, 20).normal_(1.0, 0.5), 1.0, 0.5),
    "normal_ with keywords": (lambda: torch.empty(30, 20).normal_(std=0.5, mean=1.0), 1.0, 0.5),
    "Tensor.normal_ as a function": (lambda: torch.Tensor.normal_(torch.empty(30, 20), 1.0, 0.5), 1.0, 0.5),
    "through .data": (lambda: nn.Parameter(torch.empty(30, 20)).data.normal_(1.0, 0.5), 1.0, 0.5),
    "torch.randn": (lambda: torch.randn(30, 20), 0.0, 1.0),
    "torch.randn_like": (lambda: torch.randn_like(torch.empty(30, 20)), 0.0, 1.0),
    "torch.normal": (lambda: torch.normal(1.0, 0.5, (30, 20)), 1.0, 0.5),
    "an operator": (lambda: torch.ops.aten.normal_(torch.empty(30, 20), 1.0, 0.5), 1.0, 0.5),
    "without torch functions": (
        lambda: without_torch_functions(lambda: torch.empty(30, 20).normal_(1.0, 0.5)),
        1.0,
        0.5,
    ),
}


def without_torch_functions(make):
    with torch._C.DisableTorchFunction():
        return make()


@pytest.mark.parametrize("way", WAYS_OF_TENSORS)
def test_normal_draws_of_tensors(way):
    make, mean, std = WAYS_OF_TENSORS[way]
    assert torch.equal(drawn(make), ours("normal", 30, 20, mean=mean, std=std))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.rand(30, 20),
        lambda: torch.rand_like(torch.empty(30, 20)),
        lambda: torch.empty(30, 20).uniform_(),
        lambda: torch.empty(30, 20).uniform_(to=1.0, **{"from": 0.0}),
    ],
)
def test_uniform_draws_of_tensors(make):
    assert torch.equal(drawn(make), ours("uniform", 30, 20, low=0.0, high=1.0))


def test_numbers_count_all_draws():
    with xt.fast_init(seed=0):
        a, b = torch.randn(5), torch.rand(5)
        c = nn.Parameter(torch.randn(5, requires_grad=True))
        d = xt.normal_(torch.empty(5))
    assert torch.equal(a, ours("normal", 5, number=0)) and torch.equal(
        b, ours("uniform", 5, number=1, low=0.0, high=1.0)
    )
    assert torch.equal(c, ours("normal", 5, number=2)) and torch.equal(d, ours("normal", 5, number=3))


OTHERS = {
    "orthogonal_": lambda: nn.init.orthogonal_(torch.empty(20, 30)),
    "sparse_": lambda: nn.init.sparse_(torch.empty(20, 30), 0.5),
    "randperm": lambda: torch.randperm(50),
    "randint": lambda: torch.randint(0, 1000, (50,)),
    "bernoulli_": lambda: torch.empty(50).bernoulli_(0.3),
    "exponential_": lambda: torch.empty(50).exponential_(),
    "multinomial": lambda: torch.multinomial(torch.ones(50), 20),
    "normal of tensors": lambda: torch.normal(torch.zeros(50), torch.ones(50)),
    "dropout": lambda: nn.functional.dropout(torch.ones(50)),
    "rand complex": lambda: torch.rand(50, dtype=torch.complex64),
    "a loop of its own": lambda: torch.empty(50).uniform_(-1, 1).erfinv_().mul_(0.02),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_all_else_is_repeatable_too(kind):
    first = drawn(OTHERS[kind])
    with xt.fast_init(seed=1):
        assert not torch.equal(OTHERS[kind](), first)


def test_the_callers_generator_is_left_as_it_was():
    state = torch.get_rng_state()
    with xt.fast_init(seed=0):
        torch.randn(3), torch.randperm(5), nn.Linear(3, 4)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(KeyError), xt.fast_init(seed=0):
        torch.randperm(5)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_the_generators_of_devices_are_seeded_and_put_back_too(monkeypatch, kind):
    theirs = torch.Generator().manual_seed(5)  # stands for a device's
    if kind == "mps":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: theirs)
    else:
        monkeypatch.setattr(getattr(torch, kind), "is_initialized", lambda: True)
        monkeypatch.setattr(getattr(torch, kind), "default_generators", (theirs,))
    state, drawn = theirs.get_state(), []
    for _ in range(2):
        with xt.fast_init(seed=0):
            drawn.append(torch.randperm(1000, generator=theirs))
        assert torch.equal(theirs.get_state(), state)
    assert torch.equal(*drawn)
    assert not torch.equal(torch.randperm(1000, generator=theirs), drawn[0])


def test_what_stood_in_torch_stands_there_again():
    def theirs(*args):
        raise AssertionError

    before = nn.init._no_grad_trunc_normal_
    nn.init._no_grad_trunc_normal_ = theirs
    try:
        with xt.fast_init(seed=0), xt.fast_init(seed=1):
            nn.init.trunc_normal_(torch.empty(5))
        assert nn.init._no_grad_trunc_normal_ is theirs
    finally:
        nn.init._no_grad_trunc_normal_ = before


def test_without_a_seed_torchs_generator_decides():
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with xt.fast_init():
            models.append((nn.Linear(20, 30).weight, torch.randperm(50)))
    assert torch.equal(models[0][0], models[1][0]) and torch.equal(models[0][1], models[1][1])
    assert difference(models[0][0].detach().numpy(), models[2][0].detach().numpy())
    assert not torch.equal(models[0][1], models[2][1])


def test_contexts_within_contexts_and_threads_beside_them():
    outside = {}

    def work():
        outside["weight"] = torch.empty(5).normal_()

    with xt.fast_init(seed=0):
        first = torch.randn(5)
        with xt.fast_init(seed=1):
            inner = torch.randn(5)
        second = torch.randn(5)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        third = torch.randn(5)
    for number, tensor in enumerate((first, second, third)):
        assert torch.equal(tensor, ours("normal", 5, number=number))
    same_bits(inner.numpy(), xf.normal(5, seed=1, name="0"))
    assert not torch.equal(outside["weight"], ours("normal", 5, number=2))


def test_draws_with_a_generator_are_torchs():
    def make():
        generator = torch.Generator().manual_seed(1)
        return [
            torch.empty(5).normal_(generator=generator), torch.randn(5, generator=generator),
            torch.rand(5, generator=generator), torch.normal(0.0, 1.0, (5,), generator=generator),
            nn.init.kaiming_uniform_(torch.empty(5, 5), generator=generator),
            nn.init.trunc_normal_(torch.empty(5), generator=generator),
        ]  # fmt: skip

    with xt.fast_init(seed=0):
        within = make()
        assert torch.equal(torch.randn(5), ours("normal", 5))  # none of them was counted
    for a, b in zip(within, make(), strict=True):
        assert torch.equal(a, b)


def test_tensors_without_elements_and_on_meta_are_not_counted():
    with xt.fast_init(seed=0):
        nn.Linear(3, 4, device="meta")
        torch.empty(0).normal_()
        assert torch.randn(3, device="meta").is_meta
        assert torch.equal(torch.randn(5), ours("normal", 5))


def test_half_precision_is_drawn_in_its_own_dtype():
    with xt.fast_init(seed=0):
        weight = torch.empty(50, dtype=torch.float16).normal_(0, 0.02)
    same_bits(weight.numpy(), xf.normal(50, std=0.02, seed=0, name="0", dtype="float16"))
