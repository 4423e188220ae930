"""GF(2**128) and Shamir's sharing over it, written out: an oracle beside pycryptodome."""

ORDER = 1 << 128
IRREDUCIBLE = ORDER | 0x87
"""GF(2**128) by x**128 + x**7 + x**2 + x + 1, as pycryptodome has it."""


def times(a, b):
    """The product in GF(2**128), by the school's method."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = a << 1, b >> 1
        a ^= IRREDUCIBLE if a & ORDER else 0
    return product


def inverse(a):
    """a to the power of 2**128 - 2."""
    result, power = 1, a
    for _ in range(127):
        power = times(power, power)
        result = times(result, power)
    return result


def at_zero(points):
    """The value at 0 of the polynomial through these points, by Lagrange."""
    total = 0
    for x, y in points:
        for other, _ in points:
            if other != x:
                y = times(y, times(other, inverse(x ^ other)))
        total ^= y
    return total


def values_at(coefficients, count):
    """The polynomial's values at 1 to count; its value at 0 is the first coefficient."""
    found = []
    for x in range(1, count + 1):
        y = 0
        for coefficient in reversed(coefficients):
            y = times(y, x) ^ coefficient
        found.append(y)
    return found
