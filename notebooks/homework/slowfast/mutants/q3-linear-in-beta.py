def fast_share(layers, alpha, beta):
    """Only the channels that a layer makes are fewer."""
    slow = fast = 0
    for dim, out, slow_taps, fast_taps, places, joined in layers:
        more = 2 * dim // beta if joined else 0
        slow += (dim + more) * out * slow_taps * places
        fast += alpha * dim * out // beta * fast_taps * places
    return fast / (slow + fast)
