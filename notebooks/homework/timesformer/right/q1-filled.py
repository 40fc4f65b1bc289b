def space_first(space, time, x):
    """Into tensors of zeros, frame by frame, then place by place."""
    b, t, h, w, d = x.shape
    y, z = torch.zeros(b, t, h, w, d), torch.zeros(b, t, h, w, d)
    for frame in range(t):
        y[:, frame] = space(x[:, frame].reshape(b, h * w, d)).reshape(b, h, w, d)
    y = x + y
    for i in range(h):
        for j in range(w):
            z[:, :, i, j] = time(y[:, :, i, j])
    return y + z
