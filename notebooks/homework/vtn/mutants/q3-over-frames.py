def kept(frames, window, step):
    """Full attention is counted without the class token."""
    count = 1 + 3 * frames
    count += sum(2 * max(frames - i * step, 0) for i in range(1, window // 2 + 1))
    return count / frames**2
