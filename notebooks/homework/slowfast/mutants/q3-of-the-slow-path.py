def fast_share(layers, alpha, beta):
    """The fast path's cost over the slow path's, not over both."""
    slow = fast = 0
    for dim, out, slow_taps, fast_taps, places, joined in layers:
        thin = dim if dim == 3 else dim // beta
        slow += (dim + 2 * thin * joined) * out * slow_taps * places
        fast += alpha * thin * out // beta * fast_taps * places
    return fast / slow
