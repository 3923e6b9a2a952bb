"""How good is it, and how sure are we."""
import math

def pass_at_k(n: int, c: int, k: int) -> float:
    """P."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)
