def fast_share(layers, alpha, beta):
    """Both paths are given the slow path's kernels."""
    slow = fast = 0
    for dim, out, slow_taps, _, places, joined in layers:
        thin = dim if dim == 3 else dim // beta
        slow += (dim + 2 * thin * joined) * out * slow_taps * places
        fast += alpha * thin * out // beta * slow_taps * places
    return fast / (slow + fast)
