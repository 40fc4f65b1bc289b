def class_token(space, time, x, cls, frames):
    """Rows of zeros are filled with the class token and the patches."""
    found = torch.zeros(len(x), 1, x.shape[-1])
    for i, n in enumerate(frames):
        z = space_first(space, time, x[i : i + 1, :n])
        rows = torch.zeros(n, 1 + z.shape[2] * z.shape[3], z.shape[4])
        rows[:, 0] = cls[i, 0]
        rows[:, 1:] = z[0].flatten(1, 2)
        found[i] = cls[i] + space(rows)[:, 0].mean(0)
    return found
