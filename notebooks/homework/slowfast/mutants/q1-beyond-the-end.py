def frames_of(first, video, tau, alpha, number):
    """Frame numbers that the video does not have."""
    fast = [first + i * tau // alpha for i in range(alpha * number)]
    return fast[::alpha], fast
