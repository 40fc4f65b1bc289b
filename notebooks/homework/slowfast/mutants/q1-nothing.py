def frames_of(first, video, tau, alpha, number):
    """No list at all."""
    return []
