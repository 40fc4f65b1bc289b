def fast_share(layers, alpha, beta):
    """The two are mixed up."""
    alpha, beta = beta, alpha
    slow = fast = 0
    for dim, out, slow_taps, fast_taps, places, joined in layers:
        thin = dim if dim == 3 else dim // beta
        slow += (dim + 2 * thin * joined) * out * slow_taps * places
        fast += alpha * thin * out // beta * fast_taps * places
    return fast / (slow + fast)
