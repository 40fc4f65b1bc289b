def inflated(weight, bias, frames, clip, stride=(1, 1)):
    """One row and column of zeros around, whatever the kernel."""
    kernel = repeat(weight / frames, "o i a b -> o i t a b", t=frames)
    ends = F.pad(clip, (0, 0, 0, 0, frames // 2, frames // 2), mode="replicate")
    return F.conv3d(
        ends, kernel, bias, (stride[0], stride[1], stride[1]), padding=(0, 1, 1)
    )
