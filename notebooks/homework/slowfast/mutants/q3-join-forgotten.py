def fast_share(layers, alpha, beta):
    """A join brings no channels."""
    slow = fast = 0
    for dim, out, slow_taps, fast_taps, places, _ in layers:
        thin = dim if dim == 3 else dim // beta
        slow += dim * out * slow_taps * places
        fast += alpha * thin * out // beta * fast_taps * places
    return fast / (slow + fast)
