def frames_of(first, video, tau, alpha, number):
    """The fast path takes one frame every alpha."""
    slow = [min(first + i * tau, video - 1) for i in range(number)]
    return slow, [min(first + i * alpha, video - 1) for i in range(alpha * number)]
