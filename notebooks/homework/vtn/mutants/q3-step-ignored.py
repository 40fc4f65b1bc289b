def kept(frames, window, step):
    """Frames side by side."""
    count = 1 + 3 * frames
    count += sum(2 * max(frames - i, 0) for i in range(1, window // 2 + 1))
    return count / (1 + frames) ** 2
