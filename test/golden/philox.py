"""The counter that ours draws random numbers from, for those who must drop the same elements."""

import numpy as np


def philox(counter, key):
    """counter: four uint32 arrays or numbers, key: two numbers → four uint32 arrays."""
    c = [np.asarray(x, dtype=np.uint64) for x in counter]
    k = [np.uint64(x) for x in key]
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> half) ^ c[1] ^ k[0], p1 & mask, (p0 >> half) ^ c[3] ^ k[1], p0 & mask]
        k = [(k[0] + np.uint64(0x9E3779B9)) & mask, (k[1] + np.uint64(0xBB67AE85)) & mask]
    return c


def draws(seed, name, index, count):
    """Numbers in [0, 1) for the first elements of one input's tensor, as src/engine/merge/draws.ts."""
    assert count <= 65536
    h = 0x811C9DC5
    for byte in name.encode():
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    i = np.arange((count + 3) // 4)
    words = np.stack(np.broadcast_arrays(*philox([i, h, index, 1], [seed, 0])), axis=-1)
    return words.reshape(-1)[:count].astype(np.float64) / 2**32
