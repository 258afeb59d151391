"""A and k from order flow, against direct maximisation of the likelihood, exact laws, and flows whose A and k are known."""

import math

import numpy as np
import pytest
from scipy import optimize

from mfg_jax.flow import FlowError, FlowEstimate, OrderFit, Orders, fit_fills, fit_orders, least_squares

A, K = 10.0, 1.2
DURATION = 300.0
WINDOWS = [(0.5, math.inf), (0.5, 4.5), (1.5, 6.5)]


def flow(seed: int, burst: float = 1.0, tick: float = 1.0) -> Orders:
    """Orders at rate A·exp(−K·depth) in bursts of `burst` on average, in which each lasts about half a second."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, DURATION, rng.poisson(A * DURATION / burst))
    sizes = rng.geometric(1 / burst, starts.size)
    times = (np.repeat(starts, sizes) + rng.exponential(0.5, sizes.sum())) % DURATION
    reach = rng.exponential(1 / K, times.size)
    depths = tick * (np.floor(reach / tick - 0.5) + 0.5) if tick else reach
    return Orders(times, depths, DURATION, tick)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("tick", [0.0, 1.0])
def test_the_fit_maximises_the_likelihood(window: tuple[float, float], tick: float):
    orders = flow(1, tick=tick)
    low, high = window
    depths = orders.depths[orders.depths >= low]
    ended = depths + tick <= high

    def minus_log_likelihood(numbers: np.ndarray) -> float:
        rate, k = np.exp(numbers)
        share = -math.expm1(-k * tick) if tick else k
        arrivals = DURATION * rate * math.exp(-k * low) - depths.size * (math.log(rate) - k * low)
        ends = k * (depths - low)[ended] - math.log(share)
        beyond = k * (high - low) * (~ended).sum() if (~ended).any() else 0.0
        return arrivals + ends.sum() + beyond

    best = optimize.minimize(
        minus_log_likelihood, np.log([5.0, 2.0]), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}
    )
    fit = fit_orders(orders, window)
    np.testing.assert_allclose([fit.A.value, fit.k.value], np.exp(best.x), rtol=1e-6)


@pytest.mark.parametrize("low", [0.0, 0.3, 1.0])
def test_a_window_that_starts_between_prices_tells_the_same_flow(low: float):
    """Orders end at 0.5, 1.5, …; what they did between the window's start and the first of these is not known."""
    orders, first = flow(1), math.ceil(low - 0.5) + 0.5
    between, on_lattice = fit_orders(orders, (low, math.inf)), fit_orders(orders, (first, math.inf))
    np.testing.assert_allclose([between.A.value, between.k.value], [on_lattice.A.value, on_lattice.k.value], rtol=1e-9)


def test_a_window_in_which_hardly_any_order_ends():
    """Of 1,000 orders about three: in some samples of the fitted law none does."""
    rng = np.random.default_rng(0)
    depths = np.floor(rng.exponential(1000.0, 1000)) + 0.5
    fit = fit_orders(Orders(np.sort(rng.uniform(0, DURATION, 1000)), depths, DURATION, 1.0), (0.5, 3.5))
    assert fit.k.low < 1e-3 < fit.k.high


@pytest.mark.parametrize("burst", [1.0, 5.0])
def test_intervals_cover_the_truth_in_92_to_98_percent_of_400_samples(burst: float):
    fits = [fit_orders(flow(seed, burst), (0.5, 10.5), seed=seed) for seed in range(400)]
    for covered in ([f.A.low <= A <= f.A.high for f in fits], [f.k.low <= K <= f.k.high for f in fits]):
        assert 0.92 <= np.mean(covered) <= 0.98


def test_the_distance_is_usual_for_the_law_and_unusual_for_another():
    fits = [fit_orders(flow(seed), (0.5, 10.5)) for seed in range(100)]
    assert np.mean([fit.distance <= fit.usual_distance for fit in fits]) > 0.85
    orders = flow(0)
    heavy = Orders(orders.times, np.where(orders.depths > 1.0, 4 * orders.depths, orders.depths), DURATION, 1.0)
    fit = fit_orders(heavy, (0.5, math.inf))
    assert fit.distance > 3 * fit.usual_distance


def test_bursts_show_in_the_dispersion_and_widen_the_interval_of_A():
    alone, bursts = (fit_orders(flow(3, burst), (0.5, 10.5)) for burst in (1.0, 10.0))
    assert alone.dispersion < 2 < bursts.dispersion
    assert (bursts.A.high - bursts.A.low) > 2 * (alone.A.high - alone.A.low)


def scaled(fit: OrderFit, price: float, time: float) -> list[float]:
    return [fit.A.value * time, fit.A.low * time, fit.A.high * time, fit.k.value * price, fit.k.low * price, fit.k.high * price]


def test_other_units_give_the_same_flow():
    orders = flow(4)
    other = Orders(60 * orders.times, 0.25 * orders.depths, 60 * DURATION, 0.25)
    fits = fit_orders(orders, (0.5, 4.5)), fit_orders(other, (0.125, 1.125))
    np.testing.assert_allclose(scaled(fits[0], 1, 1), scaled(fits[1], 0.25, 60), rtol=1e-12)


def test_halving_counts_are_a_straight_line():
    counts = [32, 16, 8, 4, 2, 1, 1]
    depths = np.repeat(np.arange(len(counts)) + 0.5, counts)
    orders = Orders(np.linspace(0, 8, depths.size), depths, 8.0, 1.0)
    rate, k = least_squares(orders, (0.5, 5.5))
    np.testing.assert_allclose([rate, k], [8.0 * math.sqrt(2), math.log(2)], rtol=1e-12)


@pytest.mark.parametrize(
    ("depths", "window"),
    [([0.5, 0.5, 0.5], (0.5, math.inf)), ([0.5, 0.5], (2.5, 4.5)), ([9.5, 9.5], (0.5, 4.5)), ([], (0.5, 1.5))],
    ids=["all end at the first price", "none reaches", "all go beyond", "no orders"],
)
def test_orders_that_tell_nothing(depths: list[float], window: tuple[float, float]):
    with pytest.raises(FlowError, match="no orders end between"):
        fit_orders(Orders(np.arange(len(depths), dtype=float), np.array(depths), 10.0, 1.0), window)


def test_too_few_orders():
    with pytest.raises(FlowError, match=r"3 orders reach .* from the mid; allowed: at least 20"):
        fit_orders(Orders(np.arange(3.0), np.array([0.5, 1.5, 0.5]), 10.0, 1.0), (0.5, math.inf))


def test_least_squares_needs_two_offsets():
    with pytest.raises(FlowError, match="fewer than two offsets"):
        least_squares(Orders(np.arange(3.0), np.full(3, 0.5), 10.0, 1.0), (0.5, 5.5))


class TestFills:
    OFFSETS = np.array([0.5, 1.0, 2.0, 3.0])
    EXPOSURES = np.array([10.0, 500.0, 200.0, 1000.0])

    def drawn(self, seed: int, overdispersed: bool = False) -> FlowEstimate:
        rng = np.random.default_rng(seed)
        luck = rng.gamma(20, 1 / 20, 4) if overdispersed else 1.0
        return fit_fills(self.OFFSETS, self.EXPOSURES, rng.poisson(luck * A * self.EXPOSURES * np.exp(-K * self.OFFSETS)))

    def test_expected_fills_give_the_law_back(self):
        fit = fit_fills(self.OFFSETS, self.EXPOSURES, A * self.EXPOSURES * np.exp(-K * self.OFFSETS))
        np.testing.assert_allclose([fit.A.value, fit.k.value], [A, K], rtol=1e-12)

    def test_intervals_cover_the_truth(self):
        fits = [self.drawn(seed) for seed in range(400)]
        for covered in ([f.A.low <= A <= f.A.high for f in fits], [f.k.low <= K <= f.k.high for f in fits]):
            assert 0.92 <= np.mean(covered) <= 0.99  # wider than need be, as no dispersion below 1 is believed

    def test_more_scatter_than_poisson_widens_the_intervals(self):
        widths = [[f.k.high - f.k.low for f in (self.drawn(seed), self.drawn(seed, True))] for seed in range(50)]
        calm, wild = np.median(widths, axis=0)
        assert wild > 2 * calm

    @pytest.mark.parametrize(
        ("offsets", "fills", "message"),
        [
            ([1.0, 1.0], [5, 6], "fewer than two offsets, or no fills"),
            ([1.0, 2.0], [0, 0], "fewer than two offsets, or no fills"),
            ([1.0, 2.0], [5, 6], "do not fall with the offset"),
            ([1.0, 2.0], [5, 0], "do not fall with the offset"),
        ],
        ids=["one offset", "no fills", "more fills further away", "fills at one offset only"],
    )
    def test_fills_that_tell_nothing(self, offsets: list[float], fills: list[int], message: str):
        with pytest.raises(FlowError, match=message):
            fit_fills(np.array(offsets), np.ones(2), np.array(fills))
