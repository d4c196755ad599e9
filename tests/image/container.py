"""Runs a program in a folder as a container engine would: the folder is its whole root, read-only; no user, no privileges."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess

C = ctypes.CDLL(None, use_errno=True)
RDONLY, NOSUID, NODEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
DETACH = 2
DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 24, 38


def mount(source, target, flags):
    if C.mount(os.fsencode(source), os.fsencode(target), None, flags, None) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount", str(target))


def loopback_up():
    """A new network namespace has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        set_flags, up = 0x8914, 1
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", up))


@contextlib.contextmanager
def sealed(root, hosts):
    """What an engine does before the start: its own /etc/hosts and /etc/resolv.conf, and nothing can be written."""
    mount("none", "/", RECURSIVE | PRIVATE)
    (root / "etc/hosts").write_text(hosts)
    (root / "etc/resolv.conf").write_text("")
    mount(root, root, BIND)
    mount("none", root, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    try:
        yield
    finally:
        C.umount2(os.fsencode(root), DETACH)


def lay_over(file, root, path):
    """One file over another, as with `--volume FILE:PATH:ro`."""
    mount(file, root / path, BIND)


def start(root, user, group, words, environment, **options):
    """Popen in the root; everything that the program needs must be there."""

    def become():
        os.chroot(root)
        os.chdir("/")
        for capability in range(64):
            C.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        C.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)

    return subprocess.Popen(
        words, env=environment, preexec_fn=become, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, **options,
    )


def privileges(pid):
    """What the kernel says of a process: its user, its capabilities."""
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    capabilities = {lines[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    return lines["Uid"].split(), lines["Groups"].split(), capabilities, lines["NoNewPrivs"]
