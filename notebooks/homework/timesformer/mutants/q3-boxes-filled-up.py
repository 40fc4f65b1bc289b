def pairs(grid, window, stride):
    """Boxes that are cut off count as whole ones, and so in the second layer."""
    local, everywhere = 1, 1
    for n, box, step in zip(grid, window, stride):
        local *= -(-n // box) * box**2
        everywhere *= step * (-(-n // step)) ** 2
    return local + everywhere
