/* Closed forms: the Gaussian mechanism, and one step of its Poisson-subsampled form.
 *
 * A Gaussian mechanism of sensitivity 1 and deviation 1/mu has, at every epsilon of either sign,
 *     delta(epsilon) = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu)
 * (Balle, Wang 2018, theorem 8), and T of them are one with mu sqrt(T). A step that takes each
 * record with probability q has, with e^epsilon = 1 - q + q e^g,
 *     removing a record:  delta = q delta(g)
 *     adding one:         delta = (1 - (1 - q) e^epsilon) delta(-log((e^-epsilon - 1 + q) / q))
 * since its likelihood ratio is 1 - q + q times that of the Gaussian. The larger of the two is the
 * step's own. */
#pragma once

/* log of the standard normal distribution function; accurate in the lower tail. */
double dure_normal_log_cdf(double x);

/* delta at epsilon (any real) of the Gaussian mechanism; 0 for mu 0. mu >= 0. */
double dure_gaussian_delta(double mu, double epsilon);
/* The smallest epsilon >= 0 with delta(epsilon) <= delta, to the last bits, rounded up; infinite
 * for an infinite mu. 0 < delta < 1. */
double dure_gaussian_epsilon(double mu, double delta);

/* One step with 0 < rate <= 1 and sigma > 0: the larger of both directions. */
double dure_subsampled_delta(double rate, double sigma, double epsilon);
double dure_subsampled_epsilon(double rate, double sigma, double delta);

/* mu of the central limit of `steps` steps (Dong, Roth, Su 2019): an approximation that may state
 * too small an epsilon. For show; nothing is held to it. */
double dure_gaussian_limit_mu(double rate, double sigma, double steps);
