def kept(frames, window, step):
    """The class token sees, and is not counted where it is seen."""
    count = 1 + 2 * frames
    count += sum(2 * max(frames - i * step, 0) for i in range(1, window // 2 + 1))
    return count / (1 + frames) ** 2
