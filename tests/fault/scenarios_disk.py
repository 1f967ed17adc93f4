"""What happens to the journal's disk and files."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import harness
from registry import scenario
from world import Skip, Violation, make_payload


def set_up(world, config=None, **sender):
    broker = world.start_broker()
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port, config=config)
    world.bridge.connected()
    world.start_sender(**sender)
    return proxy


def mount(world, size):
    """A small file system of its own, in the round's folder."""
    if os.geteuid() != 0:
        raise Skip("mounting a tmpfs needs root")
    path = world.path("disk")
    os.makedirs(path, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    world._closers.append(lambda: subprocess.run(["umount", "-l", path], check=False))
    return path


@scenario("disk")
def disk_full(world):
    """The disk fills up under load; what is answered 200 is kept, and with room again it goes on by itself."""
    disk = mount(world, "24m")
    proxy = set_up(world, config={"journal": {"path": f"{disk}/journal.db"}}, sizes=[None, 2000, 20000])
    for _ in range(world.times(1, 3)):
        world.accept(1, 100)
        if world.rng.random() < 0.5:
            proxy.shut()  # so that nothing is published, either
            world.link_broke()
        left = world.rng.choice([0, 0, world.rng.randint(0, 400_000)])
        with open(f"{disk}/ballast", "wb", buffering=0) as ballast:
            try:
                while os.statvfs(disk).f_bavail * 4096 > left:
                    ballast.write(bytes(4096))
            except OSError:
                pass
        world.counts["disks full"] += 1
        world.refused()
        world.hold(0, 1.0)
        if world.rng.random() < 0.3:
            world.kill_bridge()
            os.unlink(f"{disk}/ballast")
            world.restart_bridge()
        else:
            os.unlink(f"{disk}/ballast")
        proxy.open()
        world.accept(20)
    world.finish()


def detach(tracer, process):
    """strace can take its time where threads come and go; what it leaves behind must run on."""
    tracer.send_signal(signal.SIGINT)
    try:
        tracer.wait(10)
    except subprocess.TimeoutExpired:
        tracer.kill()
        tracer.wait(harness.DEADLINE)
        process.send_signal(signal.SIGCONT)


@scenario("disk")
def system_calls_fail(world):
    """EIO from fdatasync, pwrite64 and ftruncate, once or for a while, under a debugger."""
    if not shutil.which("strace"):
        raise Skip("there is no strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        raise Skip("ptrace is not permitted here")
    set_up(world, config={"journal": {"max_size": "4MiB"}}, sizes=[None, 2000])
    for _ in range(world.times(2, 3)):
        world.accept(1, 60)
        call = world.rng.choice(["fdatasync", "pwrite64", "ftruncate"])
        error = world.rng.choice(["EIO", "EIO", "ENOSPC"]) if call != "fdatasync" else "EIO"
        first = world.rng.randint(1, 20)
        when = f"{first}+" if world.rng.random() < 0.3 and call != "ftruncate" else str(first)
        log = world.path("strace")
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(world.bridge.process.pid), "-o", log, "-e", f"trace={call}",
                                   "-e", f"inject={call}:error={error}:when={when}"], stderr=subprocess.DEVNULL)
        try:
            injected = lambda: os.path.exists(log) and open(log, errors="replace").read().count("INJECTED")  # noqa: E731
            if call == "ftruncate":
                world.accept(30)  # there may be none
            else:
                harness.wait_until(injected, f"{call} to fail", 60)
                world.hold(0, 0.5)
        finally:
            detach(tracer, world.bridge.process)
        world.counts["injected errors"] += injected() or 0
        world.ledger.broke(128)  # it may have been slow enough to lose the broker
        if os.path.exists(log):
            os.unlink(log)
        world.accept(20)
    world.finish()


@scenario("disk")
def journal_moved_away_and_back(world):
    """The files are moved away under the running bridge: it notices, refuses, and goes on when they are back."""
    set_up(world)
    path = world.bridge.config["journal"]["path"]
    for _ in range(world.times(1, 2)):
        world.accept(1, 100)
        names = [path + suffix for suffix in ("", "-wal", "-shm")]
        for name in names if world.rng.random() < 0.5 else reversed(names):
            os.rename(name, name + ".away")
        world.counts["journals moved"] += 1
        world.refused()
        world.hold(0, 1.2)
        for name in names:
            os.rename(name + ".away", name)
        world.accept(10)
    world.finish()


@scenario("disk")
def journal_deleted_or_replaced(world):
    """The files are deleted, or others put in their place: what was answered 200 still arrives from the open ones."""
    proxy = set_up(world)
    path = world.bridge.config["journal"]["path"]
    world.accept(20, 200)
    if world.rng.random() < 0.5:
        proxy.shut()
        world.link_broke()
        world.accept(20, 200)
    what = world.rng.choice(["deleted", "replaced by another database", "replaced by garbage", "log deleted"])
    world.counts["journals " + what.split(" ")[0]] += 1
    if what != "log deleted":
        os.unlink(path)
    if what in ("deleted", "log deleted"):
        os.unlink(path + "-wal")
    if what == "replaced by another database":
        sqlite3.connect(path).execute("CREATE TABLE t(a)").connection.close()
    elif what == "replaced by garbage":
        with open(path, "wb") as f:
            f.write(world.rng.randbytes(100_000))
    world.refused()
    proxy.open()
    world.sender.stop()
    while world.ledger.open_count():
        world.check_alive()
        before = world.ledger.open_count()
        harness.wait_until(lambda: world.ledger.open_count() < before, f"the last {before} events (the journal was {what})", 60)
    world.watchers[0].catch_up()
    world.bridge.stop(deadline=60)
    world.check_log()
    found = world.ledger.violations()
    if found:
        raise Violation(f"the journal was {what}:\n" + "\n".join(found[:20]))


def start_and_wait(world, path):
    """Starts a bridge on a journal without a broker. Its exit status and what it said; None for the status if it runs."""
    world.restart_bridge(wait=False)
    harness.wait_until(lambda: " INFO ready" in world.bridge.log() or world.bridge.process.poll() is not None, "the bridge", 60)
    return world.bridge.process.poll(), world.bridge.log()


def files_of(path):
    return {suffix: open(path + suffix, "rb").read() for suffix in ("", "-wal") if os.path.exists(path + suffix)}


@scenario("disk")
def corrupt_pages(world):
    """Pages are overwritten while it is stopped: one clear sentence, exit 1 and files untouched; or, where a damage is not met when
    starting, it works on, says what it cannot read, and publishes nothing that was not sent."""
    proxy = set_up(world, sizes=[None, None, 500], rate=1500, connections=8)
    proxy.shut()
    world.link_broke()
    world.accept(200, 600)
    world.sender.stop()
    if world.bridge.stop(deadline=30) != 0:
        raise Violation("it did not stop")
    path = world.bridge.config["journal"]["path"]
    good = files_of(path)
    for _ in range(world.times(3, 5)):
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)
        data = bytearray(good[""])
        pages = len(data) // 8192
        damaged = [0] if world.rng.random() < 0.3 else world.rng.sample(range(pages), min(pages, world.rng.randint(1, 3)))
        for page in damaged:
            begin, size = page * 8192 + world.rng.choice([0, 0, world.rng.randrange(8192)]), world.rng.choice([1, 16, 512, 8192])
            size = min(size, (page + 1) * 8192 - begin)
            data[begin:begin + size] = world.rng.choice([bytes(size), world.rng.randbytes(size)])
        with open(path, "wb") as f:
            f.write(data)
        for suffix, content in good.items():
            if suffix:
                with open(path + suffix, "wb") as f:
                    f.write(content)
        before = files_of(path)
        world.counts["pages damaged"] += len(damaged)
        status, log = start_and_wait(world, path)
        if status is None:
            world.hold(0.1, 0.5)
            world.check_alive()
            status = world.bridge.stop(deadline=60)
            if status != 0:
                raise Violation(f"on damaged pages {damaged} it ended with {status}:\n{log[-3000:]}")
        elif status != 1:
            raise Violation(f"damaged pages {damaged} end it with {status}:\n{log[-3000:]}")
        else:
            if path not in log:
                raise Violation(f"damaged pages {damaged}: it does not say which file:\n{log[-2000:]}")
            if files_of(path)[""] != before[""]:
                raise Violation(f"damaged pages {damaged}: the file was changed")
        world.check_log()
    # With the good files back, nothing is lost.
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.unlink(path + suffix)
    for suffix, content in good.items():
        with open(path + suffix, "wb") as f:
            f.write(content)
    proxy.open()
    world.restart_bridge()
    world.finish()


@scenario("disk")
def log_cut_at_any_length(world):
    """The power fails: the write-ahead log ends anywhere. It starts, with all that was synced before the cut, and no gap."""
    proxy = set_up(world, sizes=[None, None, 500], rate=1500, connections=8)
    proxy.shut()
    world.link_broke()
    path, moments = world.bridge.config["journal"]["path"], []
    for _ in range(world.times(3, 4)):
        world.accept(5, 60)
        world.bridge.process.send_signal(signal.SIGSTOP)
        accepted = world.ledger.accepted_ids()  # answered before; so in what is copied now
        copy = tempfile.mkdtemp(dir=world.folder)
        for suffix in ("", "-wal"):
            shutil.copyfile(path + suffix, f"{copy}/journal.db{suffix}")
        world.bridge.process.send_signal(signal.SIGCONT)
        with open(f"{copy}/journal.db-wal", "rb") as f:
            moments.append((copy, f.read(32), os.path.getsize(f"{copy}/journal.db-wal"), accepted))
    world.sender.stop()  # it would send to the copies
    world.kill_bridge()
    main = world.bridge.config["journal"]["path"]
    for _ in range(world.times(4, 6)):
        chosen = world.rng.randrange(len(moments))
        copy, head, size, accepted = moments[chosen]
        length = size if world.rng.random() < 0.3 else world.rng.randint(0, size)
        # What earlier moments had in the same log, up to a length that is still there, must be there. (A log that is begun anew keeps its size.)
        sure = set().union(*(ids for _, h, s, ids in moments[:chosen + 1] if h == head and s <= length))
        cut = tempfile.mkdtemp(dir=world.folder)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{copy}/journal.db{suffix}", f"{cut}/journal.db{suffix}")
        os.truncate(f"{cut}/journal.db-wal", length)
        if length < size and world.rng.random() < 0.3:  # and the last sector is not what was written
            with open(f"{cut}/journal.db-wal", "ab") as f:
                f.write(world.rng.randbytes(world.rng.randint(1, 5000)))
        world.bridge.configure({"journal": {"path": f"{cut}/journal.db"}})
        status, log = start_and_wait(world, f"{cut}/journal.db")
        world.counts["logs cut"] += 1
        if status is not None:
            raise Violation(f"a log cut to {length} of {size} bytes ends it with {status}:\n{log[-2000:]}")
        if world.bridge.stop(deadline=60) != 0:
            raise Violation("it did not stop")
        rows = world.journal("SELECT seq, body FROM events ORDER BY seq")
        (answer,), = world.journal("PRAGMA integrity_check")
        ids = {json.loads(body)["id"] for _, body in rows}
        if answer != "ok" or [seq for seq, _ in rows] != list(range(1, len(rows) + 1)):
            raise Violation(f"a log cut to {length} of {size} bytes: {answer}, rows {[seq for seq, _ in rows][:20]} …")
        if not sure <= ids:
            raise Violation(f"a log cut to {length} of {size} bytes lost {len(sure - ids)} events that were synced before it")
        world.check_log()
        shutil.rmtree(cut)
    world.bridge.configure({"journal": {"path": main}})
    proxy.open()
    world.restart_bridge()
    world.finish()


@scenario("disk")
def read_only_journal(world):
    """A file or file system that cannot be written: one sentence and exit 1, and nothing is changed."""
    disk = mount(world, "24m")
    proxy = set_up(world, config={"journal": {"path": f"{disk}/journal.db"}})
    proxy.shut()
    world.link_broke()
    world.accept(20, 100)
    world.sender.stop()
    killed = world.rng.random() < 0.5
    if killed:
        world.kill_bridge()
    else:
        world.bridge.stop(deadline=30)
    before = files_of(f"{disk}/journal.db")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    status, log = start_and_wait(world, f"{disk}/journal.db")
    world.counts["read-only"] += 1
    if status != 1 or f"{disk}/journal.db" not in log:
        raise Violation(f"on a read-only file system it ends with {status}:\n{log[-2000:]}")
    if files_of(f"{disk}/journal.db") != before:
        raise Violation("the files were changed")
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    proxy.open()
    world.restart_bridge()
    world.finish()


@scenario("disk")
def read_only_file(world):
    """The journal's files may only be read: one sentence and exit 1, nothing is changed; with the right back, nothing is lost."""
    proxy = set_up(world)
    proxy.shut()
    world.link_broke()
    path = world.bridge.config["journal"]["path"]
    for _ in range(world.times(1, 2)):
        world.accept(20, 100)
        world.kill_bridge()
        before, names = files_of(path), [path + suffix for suffix in ("", "-wal") if os.path.exists(path + suffix)]
        for name in world.rng.choice([names, names[:1]]):
            os.chmod(name, 0o400)  # the bridge gives up root's right to write all the same
        status, log = start_and_wait(world, path)
        world.counts["read-only"] += 1
        if status != 1 or path not in log:
            raise Violation(f"on a file that may only be read it ends with {status}:\n{log[-2000:]}")
        if files_of(path) != before:
            raise Violation("the files were changed")
        for name in names:
            os.chmod(name, 0o600)
        world.restart_bridge()
    proxy.open()
    world.finish()


def replay(world, *arguments):
    done = harness.run("replay", "-c", world.bridge.config_path, *arguments, env=world.bridge.env)
    if done.returncode != 0:
        raise Violation(f"replay {arguments} ends with {done.returncode}: {done.stderr}")


@scenario("disk")
def the_replayed_are_not_forgotten(world):
    """Dead and published events are replayed while the broker is away: neither retention nor max_size nor a kill takes them away."""
    broker = world.start_broker("max_packet_size 9000")
    proxy = world.start_proxy(broker)
    watcher = world.start_watcher(broker)
    world.start_bridge(proxy.port, config={"journal": {"max_size": "2MiB", "retention": "1s"},
                                            "admin": {"listen": f"127.0.0.1:{harness.free_port()}"}})
    world.bridge.connected()
    world.start_sender(connections=4, rate=400, sizes=[3000], allowed={429}, may_die=lambda name, payload: True)
    world.accept(20, 60)
    for _ in range(5):
        world.sender.push("large", make_payload(world.rng, 10000))
    harness.wait_until(lambda: len(world.journal("SELECT seq FROM dead")) == 5, "five dead events", 60)
    world.sender.stop()
    world.settle()
    proxy.shut()
    world.link_broke()
    (last,), = world.journal("SELECT max(seq) FROM events")
    replay(world, "--since", "1h")  # all that are there, the dead ones again too
    replayed = [json.loads(body)["id"] for body, in world.journal(f"SELECT body FROM events WHERE seq > {last}")]
    published = [id for id in replayed if world.ledger.entries[id].arrivals]
    if not published or len(replayed) - len(published) != 5:
        raise Violation(f"{len(published)} published and {len(replayed) - len(published)} dead events were replayed")
    world.ledger.broke(len(published))
    world.counts["replayed"] += len(replayed)
    world.start_sender(connections=4, rate=800, sizes=[5000], pauses=(0.1, 0.3))  # what comes presses on the room, and on time
    world.refused()
    world.hold(1.5, 3)
    if world.rng.random() < 0.5:
        world.kill_bridge()
        world.restart_bridge()
    world.sender.stop()
    before = {id: world.ledger.entries[id].arrivals for id in published}
    proxy.open()
    world.settle()
    again = lambda: [id for id in published if world.ledger.entries[id].arrivals > before[id]]  # noqa: E731
    harness.wait_until(lambda: len(again()) == len(published), f"the replayed events ({len(published)}) to arrive", 60)
    watcher.catch_up()
    harness.wait_until(lambda: len(world.journal("SELECT seq FROM dead")) == 5, "the five to be dead again", 60)
    world.ledger.broke(1000)  # what is pushed again after a second is a new event
    world.finish(ordered=False, deduplicates=False)


@scenario("disk")
def the_dead_are_not_forgotten(world):
    """Neither retention nor max_size takes dead or pending events away, however much passes."""
    broker = world.start_broker("max_packet_size 9000")
    proxy = world.start_proxy(broker)
    world.start_watcher(broker)
    world.start_bridge(proxy.port, config={"journal": {"max_size": "2MiB", "retention": "1s"}})
    world.bridge.connected()
    world.start_sender(sizes=[5000, 5000, 5000, 5000, 5000, 8000, 10000], rate=800, connections=8,
                       may_die=lambda name, payload: len(payload) > 9500)
    world.accept(20)
    world.sender.sizes = [5000]  # four times what there is room for
    world.accept(round(1600 * min(2, world.scale)))
    proxy.shut()
    world.link_broke()
    world.accept(20, 60)  # these wait, and are older than retention when they go
    world.hold(1.5, 2.5)
    if world.rng.random() < 0.5:
        world.kill_bridge()
        world.restart_bridge()
    proxy.open()
    world.accept(100)
    world.sender.stop()
    world.settle()
    dead = {json.loads(body)["id"] for body, in world.journal("SELECT body FROM dead")}
    died = {id for id, entry in world.ledger.entries.items() if entry.accepted_at and entry.may_die}
    if not died or dead != died:
        raise Violation(f"{len(died)} events died, and {len(dead)} of them are kept")
    world.ledger.broke(1000)  # what is pushed again after a second is a new event
    world.finish(deduplicates=False)
