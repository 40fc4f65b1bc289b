def fast_share(layers, alpha, beta):
    """An eighth of the channels, as in the paper."""
    slow = fast = 0
    for dim, out, slow_taps, fast_taps, places, joined in layers:
        few = 3 if dim == 3 else dim // 8
        slow += (dim + 2 * few * joined) * out * slow_taps * places
        fast += alpha * few * (out // 8) * fast_taps * places
    return fast / (slow + fast)
