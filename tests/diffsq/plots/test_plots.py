"""Figures: what is drawn (labels, units, numbers), and the estimates behind them against known answers."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from diffsq import plots
from lattice.errors import InputError


def example_figures() -> dict[str, Figure]:
    rng = np.random.default_rng(3)
    sigma = np.geomspace(0.1, 20, 8)
    kl = rng.random((8, 4)) + 0.1
    acf = plots.autocorrelation_function([rng.normal(size=200)], 10)
    k = np.array([0.0, 0.6, 2.0, 8.0])
    curve = plots.Curve(k, 1 / (k + 0.1), 0.01 / (k + 0.1))
    return {
        "thermalisation": plots.thermalisation(rng.random((50, 4)), rng.random((50, 4)), ["hot", "cold"] * 2),
        "autocorrelation": plots.autocorrelation({"$|M|$": acf}, {"$|M|$": 3}, tau_int={"$|M|$": (0.5, 0.1)}),
        "pm": plots.magnetization_distribution(rng.normal(size=500), rng.normal(size=500), np.zeros(500)),
        "two_point": plots.two_point_function(curve, {"raw": curve, "weighted": curve}),
        "gain_per_level": plots.gain_per_level(sigma, kl.sum(1), 0.5 * kl.sum(1), unet_error=kl[:, 0]),
        "gain_per_shell": plots.gain_per_shell(sigma, list("abcd"), kl, 0.5 - kl, [1, 4, 4, 8]),
        "level_over_wiener": plots.gain_per_level(sigma, None, kl.sum(1), unet_error=kl[:, 0]),
        "shell_over_wiener": plots.gain_per_shell(sigma, list("abcd"), None, kl, [1, 4, 4, 8]),
        "history": plots.training_history(
            range(100), rng.random(100), val_step=[0, 99], val_gain=[-0.1, 0.5], val_gain_error=[0.1, 0.1]
        ),
        "history_empty": plots.training_history([], []),
        "sequence": plots.denoising_sequence(rng.normal(size=(5, 8, 4)), [3, 2, 1, 0.5, 0]),
        "log_weights": plots.log_weights(rng.normal(-0.1, 0.4, 500), rng.normal(0.1, 0.4, 500), 0.0),
        "path_kl": plots.path_kl({"wiener": 3.0, "base": 0.4, "model": 0.3, "gain": 0.1, "gain_error": 0.01}),
        "level_variance": plots.level_variance([0.0, 0.5, 1.0], [0.1, 0.2, 0.3]),
        "schedule": plots.level_schedule([0.0, 0.5, 1.0, 4.0]),
        "pulls": plots.pull_chart(["a", "b"], {"raw": [12.0, 0.3], "weighted": [0.1, np.nan]}),
    }


def test_a_network_on_the_wiener_filter_is_shown_alone(figures: dict[str, Figure]) -> None:
    assert len(figures["level_over_wiener"].axes) == len(figures["gain_per_level"].axes) - 1
    (legend,) = figures["level_over_wiener"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["U-Net over Wiener"]
    assert figures["shell_over_wiener"].axes[0].get_title() == "U-Net over Wiener"
    bars = plots.path_kl({"wiener": 3.0, "model": 0.3, "gain": 2.7, "gain_error": 0.1}).axes[0]
    assert {label.get_text() for label in bars.get_yticklabels()} >= {"Wiener (free field)", "Wiener + U-Net"}


def test_pulls_of_several_sets_share_the_marker_of_their_kind() -> None:
    names = [f"{label} {kind}" for label in ("flow", "U-Net") for kind in ("raw", "weighted", "metropolis")]
    chart = plots.pull_chart(["a", "b"], {name: [0.1, 0.2] for name in names})
    lines = {line.get_label(): line for line in chart.axes[0].get_lines()}
    for kind in ("raw", "weighted", "Metropolis"):
        first, second = lines[f"flow {kind}"], lines[f"U-Net {kind}"]
        assert first.get_marker() == second.get_marker()
        assert first.get_color() != second.get_color()


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return example_figures()


def test_every_quantity_axis_is_labelled_with_its_unit(figures: dict[str, Figure]) -> None:
    dimensionless = (
        r"$\rho(t)$",
        "ratio to MC",
        r"$\sigma_{n+1}/\sigma_n$",
        r"$G(k)",
        r"$\ln",
        "level $n$",
        r"$\phi_x$ / rms",
        "optimizer step",
        "momentum shell",
    )
    for name, figure in figures.items():
        labels = [text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()) if text]
        assert labels, name
        for label in labels:
            assert "[" in label or label.startswith(dimensionless), f"{name}: {label}"


def test_plots_leave_no_global_state(figures: dict[str, Figure]) -> None:
    before = dict(matplotlib.rcParams)
    figure = plots.level_schedule([0.0, 1.0, 2.0])
    assert isinstance(figure, Figure)
    assert dict(matplotlib.rcParams) == before
    assert type(figure.canvas).__name__ == "FigureCanvasAgg"


def test_svg_is_themed_self_contained_and_reproducible(figures: dict[str, Figure]) -> None:
    svg = plots.to_svg(figures["pm"], "pm")
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert "var(--ink)" in svg
    assert "http" not in svg
    assert svg == plots.to_svg(figures["pm"], "pm")


def test_histogram_ratio_on_known_input() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    mc = plots.histogram_density(np.repeat([0.5, 1.5, 2.5], [400, 400, 1]), edges)
    raw = plots.histogram_density(np.repeat([0.5, 1.5], [300, 501]), edges)
    ratio = plots.curve_ratio(raw, mc)
    np.testing.assert_allclose(ratio.value[:2], [300 / 400, 501 / 400])
    assert np.isnan(ratio.value[2])  # one Monte Carlo entry carries no information


def test_weights_undo_a_wrong_proposal() -> None:
    rng = np.random.default_rng(11)
    edges = np.linspace(-2, 2, 17)
    truth, x = rng.normal(size=40_000), 1.3 * rng.normal(size=40_000)
    log_weight = -0.5 * x**2 + 0.5 * (x / 1.3) ** 2 + 100.0  # an offset must not matter
    mc, raw, weighted = (
        plots.histogram_density(*a) for a in ((truth, edges), (x, edges), (x, edges, log_weight))
    )

    def largest_pull(curve: plots.Curve) -> float:
        return float(np.max(np.abs(curve.value - mc.value) / np.hypot(curve.error, mc.error)))

    assert largest_pull(weighted) < 4.5
    assert largest_pull(raw) > 10  # the control: without weights the same comparison must fail


def test_histogram_error_is_binomial_for_independent_samples() -> None:
    n, bins = 20_000, np.linspace(0, 1, 11)
    curve = plots.histogram_density(np.random.default_rng(5).random(n), bins)
    expected = np.sqrt(0.1 * 0.9 / n) / 0.1
    # 10 jackknife errors of 100 blocks each: relative error 1/sqrt(2 * 99 * 10) of their mean square
    assert np.mean(curve.error**2) / expected**2 == pytest.approx(1, abs=4.5 * 2 / np.sqrt(2 * 99 * 10))
    assert np.sum(curve.value * np.diff(bins)) == pytest.approx(1)


def ar1(a: float, n: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=n)
    x = np.empty(n)
    x[0] = noise[0] / np.sqrt(1 - a * a)
    for i in range(1, n):
        x[i] = a * x[i - 1] + noise[i]
    return x


def test_autocorrelation_of_ar1() -> None:
    a = 0.8
    rng = np.random.default_rng(17)
    curve = plots.autocorrelation_function([ar1(a, 20_000, rng) for _ in range(4)], 40)
    t = np.arange(41)
    pulls = (curve.rho[1:] - a ** t[1:]) / curve.rho_error[1:]
    assert np.max(np.abs(pulls)) < 4.5
    assert curve.rho[0] == 1
    # Wolff's formula at fixed W; the truncation beyond W = 40 is a^41/(1-a) = 5e-4
    assert abs(curve.tau_int[40] - 0.5 * (1 + a) / (1 - a)) < 4.5 * curve.tau_int_error[40]
    assert np.all(curve.tau_int_error[1:] > 0)


def test_autocorrelation_by_direct_sum() -> None:
    x = np.random.default_rng(2).normal(size=(2, 50))
    d = x - x.mean()
    gamma = [sum(np.sum(d[r, : 50 - t] * d[r, t:]) for r in range(2)) / (2 * (50 - t)) for t in range(6)]
    curve = plots.autocorrelation_function(list(x), 5)
    np.testing.assert_allclose(curve.rho, np.array(gamma) / gamma[0], rtol=1e-12)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="constant"):
        plots.autocorrelation_function([np.ones(100)], 10)
    with pytest.raises(InputError, match="at least 2"):
        plots.autocorrelation_function([np.ones(1)], 10)
    with pytest.raises(InputError, match="at least 2"):
        plots.histogram_density([1.0], [0.0, 1.0])
    with pytest.raises(InputError, match="one sigma per frame"):
        plots.denoising_sequence(np.ones((3, 4, 4)), [1.0])


def test_denoising_frames_share_a_symmetric_scale() -> None:
    rng = np.random.default_rng(1)
    frames = rng.normal(size=(20, 6, 10)) * np.linspace(30, 1, 20)[:, None, None]
    figure = plots.denoising_sequence(frames, np.linspace(30, 0, 20), n_frames=7)
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title()]
    assert len(images) == 7
    for image in images:
        assert image.get_clim()[0] == -image.get_clim()[1]
        assert np.mean(np.asarray(image.get_array()) ** 2) == pytest.approx(1)
    titles = [axes.get_title() for axes in figure.axes if axes.images and axes.get_title()]
    assert titles[0].startswith(r"$\sigma = 30$")
    assert titles[-1].startswith(r"$\sigma = 0$")


def test_log_weight_figure_states_both_identities() -> None:
    rng = np.random.default_rng(23)
    v = 0.3
    u, f = rng.normal(-v / 2, np.sqrt(v), 4000), rng.normal(v / 2, np.sqrt(v), 4000)
    figure = plots.log_weights(
        u + 181.9, f + 181.9, 181.9, ess={"reverse": (0.74, 0.01), "forward": (0.73, 0.01)}
    )
    text = figure.axes[0].get_title()
    assert f"{np.exp(u).mean():.3f}" in text
    assert f"{np.exp(-f).mean():.3f}" in text
    assert "ESS/N forward $= 0.730" in text


def test_far_pulls_are_written_at_the_edge(figures: dict[str, Figure]) -> None:
    assert any(note.get_text() == "+12" for note in figures["pulls"].axes[0].texts)


def test_a_small_or_negative_gain_stays_readable() -> None:
    sigma, base = np.geomspace(0.1, 10, 5), np.array([1.0, 5.0, 20.0, 3.0, 0.5])
    unet = np.array([0.01, -0.02, 0.03, 0.0, -0.01])
    both, alone = plots.gain_per_level(sigma, base, unet, unet_error=np.full(5, 0.002)).axes
    assert both.get_ylim()[1] > 20
    low, high = alone.get_ylim()  # on its own linear scale the curve fills the panel
    assert alone.get_yscale() == "linear"
    assert low < -0.022 < 0.032 < high < 0.05
    assert plots.to_svg(plots.gain_per_level(sigma, 0 * base, 0 * base), "nothing")  # a result, not a failure


def test_gain_curves_are_drawn_in_order_of_sigma_with_totals() -> None:
    figure = plots.gain_per_level(
        [4.0, 1.0, 2.0], [3.0, 1.0, 2.0], [-0.3, 0.1, 0.2], totals={"base": (6.0, 0.2), "unet": (0.0, None)}
    )
    left, right = figure.axes
    assert list(left.lines[0].get_xdata()) == [1.0, 2.0, 4.0]
    assert list(left.lines[0].get_ydata()) == [1.0, 2.0, 3.0]
    assert list(right.lines[0].get_ydata()) == [0.1, 0.2, -0.3]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ["6.00(20)" in labels[0], labels[1].endswith("= 0")] == [True, True]


def test_gain_maps_are_centred_at_zero_with_gain_in_blue() -> None:
    gain = np.array([[0.4, -0.1], [0.2, 0.0]])
    figure = plots.gain_per_shell([2.0, 1.0], ["a", "b"], 10 * gain, gain)
    unet, base = (axes.images[0] for axes in figure.axes if axes.get_title())
    np.testing.assert_allclose(unet.get_array(), [[0.2, 0.4], [0.0, -0.1]])
    assert unet.get_clim() == pytest.approx((-0.4, 0.4))
    assert base.get_clim() == pytest.approx((-4, 4))
    red, _, blue, _ = unet.to_rgba(np.array([0.4]))[0]
    assert blue > red
    assert plots.to_svg(plots.gain_per_shell([1.0], ["a"], [[0.0]], [[0.0]]), "zero")


def test_path_kl_figure_states_its_numbers(figures: dict[str, Figure]) -> None:
    bars, gain = figures["path_kl"].axes
    assert [note.get_text() for note in bars.texts] == ["3", "0.4", "0.3"]
    assert gain.get_title() == "gain 0.100(10) nats"
    lone = plots.path_kl({"wiener": 3.0, "base": None})
    assert len(lone.axes) == 1
    assert [tick.get_text() for tick in lone.axes[0].get_yticklabels()] == ["Wiener (free field)"]
    assert plots.path_kl({"base": 0.4, "model": 0.4, "gain": 0.0, "gain_error": 0.0}).axes[1].get_title()
    worse = plots.path_kl({"base": 0.4, "model": 0.5, "gain": -0.1, "gain_error": 0.01}).axes[1]
    assert worse.get_xlim()[0] < -0.1 < 0 < worse.get_xlim()[1]
