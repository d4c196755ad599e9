"""Runs a program as a container engine does, without privileges and with a folder as its read-only root."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess

LIBC = ctypes.CDLL(None, use_errno=True)
# Flags of mount(2)
RDONLY, NOSUID, NODEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
# Flag of umount2(2)
DETACH = 2
# Options of prctl(2)
DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 24, 38


def mount(source, target, flags):
    if LIBC.mount(os.fsencode(source), os.fsencode(target), None, flags, None) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount", str(target))


def enable_loopback():
    """Enables the loopback interface, which is down in a new network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        set_flags, up = 0x8914, 1
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", up))


@contextlib.contextmanager
def read_only(root, hosts):
    """Writes /etc/hosts and an empty /etc/resolv.conf, as a container engine does, then makes the root read-only."""
    mount("none", "/", RECURSIVE | PRIVATE)
    (root / "etc/hosts").write_text(hosts)
    (root / "etc/resolv.conf").write_text("")
    mount(root, root, BIND)
    mount("none", root, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    try:
        yield
    finally:
        LIBC.umount2(os.fsencode(root), DETACH)


def bind_file(file, root, path):
    """Mounts a file over another one, like `docker run --volume FILE:PATH:ro`."""
    mount(file, root / path, BIND)


def start(root, user, group, command, environment, **options):
    """Starts a process in the root. The root must contain everything that the program needs."""

    def drop_privileges():
        os.chroot(root)
        os.chdir("/")
        for capability in range(64):
            LIBC.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)

    return subprocess.Popen(
        command, env=environment, preexec_fn=drop_privileges, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )


def credentials(pid):
    """Returns the user ids, groups, capability sets and no_new_privs flag of a process."""
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    capabilities = {lines[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return lines["Uid"].split(), lines["Groups"].split(), capabilities, lines["NoNewPrivs"]
