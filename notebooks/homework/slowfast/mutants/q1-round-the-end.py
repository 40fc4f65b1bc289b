def frames_of(first, video, tau, alpha, number):
    """After the last frame the video begins again."""
    fast = [(first + i * tau // alpha) % video for i in range(alpha * number)]
    return fast[::alpha], fast
