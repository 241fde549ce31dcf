"""Repeatedly kills the primary under load and promotes its synchronous standby; scripts/check failover runs it."""

import os
import time

from programs import Failure, Followers, Postgres, Server, Writers, main, say, wait_until

ROUNDS = int(os.environ.get("FAILOVER_ROUNDS", "10"))
# With `local`, commits do not wait for the standby, so the check must fail.
SYNCHRONOUS = os.environ.get("FAILOVER_SYNCHRONOUS_COMMIT", "on")
# Seconds from the promotion to the first acknowledged write.
SERVED_AGAIN = 10


def make_standby(standby, primary):
    """Makes a standby of the primary. From then on the primary's commits wait for it.

    The standby is copied before that setting, so its own commits do not wait after its promotion.
    """
    standby.copy_from(primary)
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
    primary.sql("SELECT pg_reload_conf()")
    in_step = lambda: primary.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
    wait_until(in_step, 30, "the standby did not become synchronous")


def promote(standby):
    if standby.sql("SELECT pg_promote()") != [["t"]]:
        raise Failure("the standby could not be promoted")


def run(work, stack):
    settings = {"wal_keep_size": "256MB", "synchronous_commit": SYNCHRONOUS}
    primary, standby = (Postgres(f"{work}/{name}", **settings) for name in ("one", "two"))
    stack.callback(primary.stop)
    stack.callback(standby.stop)
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    primary.create()
    make_standby(standby, primary)
    server = Server(os.environ["PROGRAM"], f"{work}/server.log", f"postgresql://todo@{hosts}/todo?target_session_attrs=read-write")
    stack.callback(server.stop)
    server.wait_until_ready()
    longest = 0
    with Writers(server) as writers, Followers(server, ["writer-0", "writer-1"]) as followers:
        for number in range(1, ROUNDS + 1):
            time.sleep(1)
            if number % 2 == 0:
                # The standby receives nothing more. A write that is acknowledged without it from here on is lost.
                standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
                standby.sql("SELECT pg_reload_conf()")
                time.sleep(0.5)
            killed = time.monotonic()
            primary.kill()
            promote(standby)
            promoted = time.monotonic()
            sentence = f"no write was acknowledged within {SERVED_AGAIN} s of promotion {number}; the server's log is\n{server.log()}"
            wait_until(lambda: writers.acknowledged_since(promoted), SERVED_AGAIN, sentence)
            served = time.monotonic()
            longest = max(longest, served - promoted)
            time.sleep(0.5)
            count = writers.check(standby)
            say(
                f"failover {number}: served again {served - promoted:.1f} s after the promotion, {served - killed:.1f} s after the kill; "
                f"{count} writes acknowledged so far"
            )
            primary, standby = standby, primary
            make_standby(standby, primary)
        time.sleep(0.5)
        writers.stop()
        count = writers.check(primary)
        restarts = followers.check(primary)
    if restarts < ROUNDS:
        raise Failure(f"a client of the feed was told of {restarts} of {ROUNDS} failovers")
    if count < 100 * ROUNDS:
        raise Failure(f"only {count} writes were acknowledged: the load was too small")
    print(
        f"{ROUNDS} failovers: {count} acknowledged writes, none lost, none doubled; "
        f"no client of the feed missed a change; "
        f"served again within {longest:.1f} s of a promotion, at most {SERVED_AGAIN} s allowed"
    )


if __name__ == "__main__":
    main(run)
