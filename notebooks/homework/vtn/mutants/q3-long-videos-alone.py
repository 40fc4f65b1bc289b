def kept(frames, window, step):
    """Short videos make negative numbers of pairs."""
    count = 1 + 3 * frames
    count += sum(2 * (frames - i * step) for i in range(1, window // 2 + 1))
    return count / (1 + frames) ** 2
