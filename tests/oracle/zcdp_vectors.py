"""Prints the figures that tests/unit/dp/test_accountant_zcdp.c holds: epsilon and delta of noise
shares in a secure sum, to 60 digits by mpmath, from the formulas of arXiv 2102.06387 (proposition
14) and arXiv 2004.00010 (proposition 12) alone. The best order is found by golden section, not by
the derivative that the accountant uses.

    python3 zcdp_vectors.py
"""
from fractions import Fraction
from mpmath import mp, mpf, exp, log, pi, sqrt

mp.dps = 60

# sigma_num, grid_bits, honest, params, rounds, delta
PLANS = [
    (65536, 15, 4, 230400, 1, "1e-5"),
    (131072, 15, 4, 230400, 10, "1e-5"),
    (327680, 15, 3, 92160, 20, "1e-5"),
    (1000003, 18, 9, 4884480, 100, "1e-6"),
    (262144, 14, 2, 1, 1, "1e-8"),
    (6553600, 16, 99, 1048576, 1000, "1e-9"),
    (32768, 14, 30, 65536, 3, "1e-5"),
    (10, 14, 2, 1, 1, "1e-5"),  # shares of deviation 1.8: tau shows
]


def parts(sigma_num, grid_bits, honest, params):
    square = Fraction(sigma_num * sigma_num * 4**grid_bits, 2**32)
    variance = -((-square / honest).__floor__())  # rounded up
    tau = 10 * sum(exp(-2 * pi**2 * variance * mpf(k) / (k + 1)) for k in range(1, honest))
    shift = mpf(2) ** grid_bits / sqrt(mpf(honest * variance))
    return variance, tau, shift


def least(f):
    """Golden section over log b; f falls, then grows."""
    a, b, g = mpf(-140), mpf(140), (sqrt(mpf(5)) - 1) / 2
    c, d = b - g * (b - a), a + g * (b - a)
    fc, fd = f(exp(c)), f(exp(d))
    for _ in range(400):
        if fc < fd:
            b, d, fd = d, c, fc
            c = b - g * (b - a)
            fc = f(exp(c))
        else:
            a, c, fc = c, d, fd
            d = a + g * (b - a)
            fd = f(exp(d))
    return min(fc, fd)


def main():
    for sigma_num, grid_bits, honest, params, rounds, delta in PLANS:
        variance, tau, shift = parts(sigma_num, grid_bits, honest, params)
        rho = rounds * (shift + tau * sqrt(mpf(params))) ** 2 / 2
        log_delta = log(mpf(delta))
        epsilon = least(lambda b: rho * (1 + b) - log(1 + 1 / b) - (log_delta + log(1 + b)) / b)
        at = epsilon / 2
        back = exp(least(lambda b: b * ((1 + b) * rho - at) - (1 + b) * log(1 + 1 / b) - log(b)))
        print("{%d, %d, %d, %d, %d, %s, %d, %s, %s, %s, %s}," % (
            sigma_num, grid_bits, honest, params, rounds, delta, variance, mp.nstr(tau, 17),
            mp.nstr(rho, 17), mp.nstr(epsilon, 17), mp.nstr(min(back, 1), 17)))


if __name__ == "__main__":
    main()
