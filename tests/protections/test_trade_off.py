"""The trade-off figure shows the numbers it is given."""

import pytest
from matplotlib.colors import same_color

from unlearnable.errors import InputError
from unlearnable.plots import save
from unlearnable.protections.stability import Stability
from unlearnable.protections.trade_off import Point, trade_off

POINTS = [
    Point("em", Stability(2.3, 0.1, 0.4, 1.9), 0.62),
    Point("sem", Stability(2.3, 0.2, 0.25, 0.7), 0.31),
]


def test_each_set_is_where_its_numbers_are(tmp_path):
    figure = trade_off(POINTS, chance=0.1)
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks]
    assert places == [pytest.approx(place) for place in [(0.3, 62), (1.8, 62), (0.05, 31), (0.5, 31)]]
    assert same_color(marks[0].get_color(), marks[1].get_color())
    assert not same_color(marks[1].get_color(), marks[2].get_color())
    assert [line.get_markerfacecolor() for line in marks[::2]] == ["none", "none"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["em", "sem"]
    assert any(list(line.get_ydata()) == [10, 10] for line in axes.lines)
    save(figure, tmp_path / "figure")
    assert (tmp_path / "figure.pdf").stat().st_size > 1000


def test_labels_are_inside_the_figure_with_long_names_too():
    long = [Point(f"adversary / adversary, {n} passes", *point[1:]) for n, point in enumerate(POINTS, 100)]
    figure = trade_off(long, chance=0.1)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for words in (axes.xaxis.label, axes.yaxis.label, *axes.get_legend().get_texts()):
        box, whole = words.get_window_extent(), figure.bbox
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1


def test_nothing_to_draw_is_said():
    with pytest.raises(InputError, match="expected protected sets to compare, found none"):
        trade_off([], chance=0.1)
