def space_first(space, time, x):
    """Row after row, added to x itself."""
    b, t, h, w, d = x.shape
    for frame in range(t):
        patches = x[:, frame].reshape(b, h * w, d)
        x[:, frame] += space(patches).reshape(b, h, w, d)
    for i in range(h):
        for j in range(w):
            x[:, :, i, j] += time(x[:, :, i, j].clone())
    return x
