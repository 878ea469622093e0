"""`make bench`: what the design bought, as ratios within one run.

    python -m bench reads     the four reads against the floor and the usual way (PostgreSQL, over HTTP)
    python -m bench page      50 users with what four plugins say of each, against the statement alone (PostgreSQL, over HTTP)
    python -m bench ingest    events per second, with loyalty consuming them (both engines)
    python -m bench import    events per second and memory while a file of events is imported (both engines)
    python -m bench growth    the first read and the bulk door from 100 000 events up to ten times `--events` (PostgreSQL)
    python -m bench rfm       a run of the RFM layering against the bare window query on the same log (both engines)
    python -m bench risk      an evaluation of 50 rules over two years of days against bare SQL for the same series (both engines)
    python -m bench points    redemptions against the bare statements, orders projected, a review of everybody (both engines)
    python -m bench budget    commitments of one line against the bare statements (both engines)
    python -m bench memory    resident memory while 100 000 requests are answered

Without a name all of them. `--users`, `--events`, `--orders`, `--members`, `--seconds`, `--rounds` size a run; the figures in the
documents are of 100 000 users, 1 000 000 events, 1 000 000 orders and 1 000 000 members. Ten million events are for
`rfm --engine postgresql --users 1000000 --events 10000000`, with 30 GB of disk.
"""

from __future__ import annotations

import argparse

from bench import budget, growth, imports, ingest, memory, page, points, reads, rfm, risk

NAMES = ["reads", "page", "ingest", "import", "growth", "points", "budget", "rfm", "risk", "memory"]


def main() -> None:
    """Run the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="|".join(NAMES))
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--members", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=["sqlite", "postgresql", "both"], default="both", help="of rfm and risk")
    given = parser.parse_args()
    names = given.names or NAMES
    if "reads" in names:
        reads.run(given.users, given.events, given.seconds, given.rounds)
    if "page" in names:
        page.run(given.users, given.events, given.seconds, given.rounds)
    if "ingest" in names:
        ingest.run(given.events)
    if "import" in names:
        imports.run(given.events)
    if "growth" in names:
        growth.run(10 * given.events, given.seconds)
    if "points" in names:
        points.run(given.orders, given.members, given.seconds, given.rounds)
    if "budget" in names:
        budget.run(given.seconds, given.rounds)
    if "rfm" in names:
        rfm.run(given.users, given.events, given.rounds, given.engine)
    if "risk" in names:
        risk.run(given.users, given.events, given.rounds, given.engine)
    if "memory" in names:
        memory.run(given.users, given.events)


if __name__ == "__main__":
    main()
