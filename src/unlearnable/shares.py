"""How shares are written, everywhere: in percent, to one decimal."""


def percent(share: float) -> str:
    """Write a share, 0 to 1.

    >>> percent(0.2906)
    '29.1 %'
    """
    return f"{100 * share:.1f} %"


def between(interval: tuple[float, float]) -> str:
    """Write an interval of shares.

    >>> between((0.282, 0.299))
    '28.2 to 29.9 %'
    """
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"
