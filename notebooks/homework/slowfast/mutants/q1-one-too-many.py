def frames_of(first, video, tau, alpha, number):
    """The number of frames is taken for the number of the last one."""
    fast = [min(first + i * tau // alpha, video) for i in range(alpha * number)]
    return fast[::alpha], fast
