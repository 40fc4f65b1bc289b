def join(slow, fast, down, up, alpha):
    """Zeros at both ends by hand, and a product of matrices in place of `up`."""
    (b, d, s, h, w), k = fast.shape, down.shape[2]
    padded = torch.zeros(b, d, s + 2 * (k // 2), h, w)
    padded[:, :, k // 2 : k // 2 + s] = fast
    handed = F.conv3d(padded, down, stride=(alpha, 1, 1)).clamp(min=0)
    back = torch.zeros(b, d, s, h, w)
    for frame in range(s):
        back[:, :, frame] = torch.einsum(
            "dc,bchw->bdhw", up[:, :, 0, 0, 0], slow[:, :, frame // alpha]
        )
    return torch.cat([slow, handed], dim=1), fast + back
