def fast_share(layers, alpha, beta):
    """The colours of the picture are divided by beta."""
    slow = fast = 0
    for dim, out, slow_taps, fast_taps, places, joined in layers:
        thin = dim / beta
        slow += (dim + 2 * thin * joined) * out * slow_taps * places
        fast += alpha * thin * out / beta * fast_taps * places
    return fast / (slow + fast)
