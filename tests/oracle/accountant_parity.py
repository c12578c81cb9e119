"""Compares Dure's PLD accountant with dp-accounting on random plans.

    accountant_parity.py ACCOUNTANT_ORACLE [PLANS [SEED [RESULTS]]]

Rate 1e-4 to 1, noise 0.4 to 20, 1 to 50,000 steps and delta 1e-8 to 1e-4, all evenly in their
logarithm; plans of epsilon over 50 are drawn again. Sound: at least 0.999 of dp-accounting's epsilon
on a grid of 2e-5, less 1e-5. Tight: at most 1.001 of the smallest on grids of 1e-4, 5e-5 and 2e-5, plus
1e-5, and of the Renyi figure.

dp-accounting's answers go to the file RESULTS, a line of JSON a plan, as soon as they are there, and
those of a run that was ended are taken from it. Dure's are always computed anew.
"""
import json
import math
import os
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from dp_accounting.pld import privacy_loss_distribution

GRIDS = (1e-4, 5e-5, 2e-5)


def theirs(plan):
    rate, sigma, steps, delta = plan
    found = []
    for grid in GRIDS:
        one = privacy_loss_distribution.from_gaussian_mechanism(
            sigma, sampling_prob=rate, value_discretization_interval=grid)
        found.append(one.self_compose(steps).get_epsilon_for_delta(delta))
    return found


def ours(program, plans):
    text = "".join("%.17g %.17g %d %.17g\n" % plan for plan in plans)
    answer = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    return [tuple(map(float, line.split())) for line in answer.stdout.splitlines()]


def draw(program, count, rng):
    """Plans as they are accounted, and our answers to them."""
    plans = []
    while len(plans) < count:
        wanted = [(10 ** rng.uniform(-4, 0), 10 ** rng.uniform(math.log10(0.4), math.log10(20)),
                   int(10 ** rng.uniform(0, math.log10(50000))), 10 ** rng.uniform(-8, -4))
                  for _ in range(count - len(plans))]
        for (_, _, steps, delta), (rate, sigma, epsilon, rdp) in zip(wanted, ours(program, wanted)):
            if epsilon <= 50:
                plans.append(((rate, sigma, steps, delta), epsilon, rdp))
    return plans


def read_results(path):
    """What an earlier run found, by plan; a last line that it did not finish is left out."""
    known = {}
    if path and os.path.exists(path):
        with open(path) as file:
            for line in file.read().split("\n")[:-1]:
                plan, found = json.loads(line)
                known[tuple(plan)] = found
        with open(path, "w") as file:
            file.writelines(json.dumps(item) + "\n" for item in known.items())
    return known


def reference(plans, path):
    """Yields dp-accounting's answers in the order of the plans."""
    known = read_results(path)
    missing = [plan for plan in plans if plan not in known]
    with ProcessPoolExecutor(os.cpu_count()) as pool, open(path or os.devnull, "a") as file:
        computed = pool.map(theirs, missing)
        for plan in plans:
            if plan not in known:
                known[plan] = next(computed)
                file.write(json.dumps((plan, known[plan])) + "\n")
                file.flush()
            yield known[plan]


def main():
    program = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    plans = draw(program, count, random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1))
    answers = reference([plan for plan, _, _ in plans], sys.argv[4] if len(sys.argv) > 4 else None)
    wrong, lowest, highest = 0, math.inf, -math.inf
    for (plan, epsilon, rdp), found in zip(plans, answers):
        least, finest = min(found), found[-1]
        sound = epsilon >= 0.999 * finest - 1e-5
        tight = epsilon <= 1.001 * least + 1e-5 and epsilon <= 1.001 * rdp + 1e-3
        if finest > 0.05:
            lowest = min(lowest, epsilon / finest)
            highest = max(highest, epsilon / least)
        if not (sound and tight):
            wrong += 1
            print("rate %.6g noise %.6g steps %d delta %.3g: Dure %.8g, Renyi %.8g, "
                  "dp-accounting %s" % (*plan, epsilon, rdp, found), flush=True)
    print(f"{count - wrong} of {count} plans agree; where epsilon is over 0.05, Dure is at least "
          f"{lowest:.6f} of the finest grid's and at most {highest:.6f} of the smallest")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
