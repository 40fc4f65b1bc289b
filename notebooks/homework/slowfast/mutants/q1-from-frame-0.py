def frames_of(first, video, tau, alpha, number):
    """Both paths begin with the video."""
    fast = [min(i * tau // alpha, video - 1) for i in range(alpha * number)]
    return fast[::alpha], fast
