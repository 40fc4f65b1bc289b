def kept(frames, window, step):
    """Every frame is given a whole window."""
    return (1 + 2 * frames + frames * (window // 2 * 2 + 1)) / (1 + frames) ** 2
