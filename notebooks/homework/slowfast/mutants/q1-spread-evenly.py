def frames_of(first, video, tau, alpha, number):
    """The slow path from the first to the last frame, as in the released code."""
    fast = [min(first + i * tau // alpha, video - 1) for i in range(alpha * number)]
    spread = torch.linspace(0, len(fast) - 1, number).long().tolist()
    return [fast[i] for i in spread], fast
